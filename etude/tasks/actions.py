"""Tagged actions: parses an answer that consists of tagged parts, checks its structure, and writes the instruction for it.

    <subproblem>...</subproblem> <subproblem>...</subproblem> <solve>...</solve> <answer>...</answer>

Divide and conquer after DAC-RL (arXiv 2602.02477): a policy splits a problem into subproblems, solves them one after another, and answers
with their solutions in the prompt. There each step is a separate call. Here one answer holds all steps, so that search, advantages and
verifiers work as for every other answer. Verifiers read the content of the last <answer>.

Actions cannot be nested. Text between them is allowed; an action without content is malformed, since otherwise its form would be rewarded.
Identity: without a preset and tags, there is no instruction and no answer is malformed.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import inf
from typing import NamedTuple

from etude.errors import UserError, unknown
from etude.tasks.task import Task

MAX_CHARACTERS = 2_000_000
"""A longer text is malformed."""
MAX_ACTIONS = 1_000
"""A text with more actions is malformed."""

_NAME = re.compile(r"[A-Za-z][\w-]{0,63}")
_ANY_TAG = re.compile(rf"<(/?)({_NAME.pattern})>")

Limits = Mapping[str, tuple[int, int | None]]
"""The minimum and maximum number of each tag (None: no limit), in the order of the tags."""


class Action(NamedTuple):
    """A tag of an answer and the text inside it."""

    tag: str
    content: str


class Preset(NamedTuple):
    """A preset of actions: the limits of each tag and the instruction."""

    limits: Limits
    instruction: str


PRESETS = {
    "divide": Preset(
        {"subproblem": (2, None), "solve": (1, None), "answer": (1, 1)},
        "Divide and conquer. First break the problem into two or more smaller subproblems, each as "
        "<subproblem>what is to be found</subproblem>. Then solve them one after another, using what you have found so far, each as "
        "<solve>the work and its result</solve>. Last, give the final answer alone, as <answer>the final answer</answer>.",
    ),
    "plan_solve_check": Preset(
        {"plan": (1, 1), "solve": (1, None), "check": (1, None), "answer": (1, 1)},
        "Work in three parts. First <plan>how you will go about it</plan>, then <solve>the work</solve>, then "
        "<check>whether the result fits the question</check>. Last, give the final answer alone, as <answer>the final answer</answer>.",
    ),
}


@dataclass(frozen=True)
class Actions:
    """Settings of tagged actions: which tags, how many of each, and the score of a malformed answer."""

    preset: str = "none"
    """`none`, `divide` (subproblems, each solved, then the answer) or `plan_solve_check`."""
    tags: dict[str, list[int]] = field(default_factory=dict)
    """Your own actions instead of a preset, in order, with the least and the greatest number of each: {plan: [1, 1], solve: [1], answer:
    [1, 1]}."""
    instruction: str | None = None
    """Text appended to every question; null = the preset's instruction, nothing with `tags`."""
    ordered: bool = True
    """Whether all actions of one tag must come before those of the next tag."""
    strict: bool = False
    """Whether other tags make an answer malformed; false = they count as text."""
    malformed_score: float = 0.0
    """Score of a malformed answer in the reward part `format`, or with `gate`: at most the lowest that the verifier gives."""
    gate: bool = False
    """In practice, give a malformed answer `malformed_score` whatever its final answer is; evaluation uses only the final answer."""

    def __post_init__(self) -> None:
        if self.preset not in ("none", *PRESETS):
            raise unknown("tasks.actions.preset", self.preset, ("none", *PRESETS))
        for tag, bounds in self.tags.items():
            if not _NAME.fullmatch(tag):
                raise UserError(f"tasks.actions.tags has {tag!r}: a tag's name is a letter, then letters, digits, _ and -, without < and >")
            if len(bounds) not in (1, 2) or bounds[0] < 0 or bounds[-1] < max(1, bounds[0]):
                raise UserError(f"tasks.actions.tags.{tag} must be [least] or [least, most] with most 1 or more, got {bounds}")
        if not -inf < self.malformed_score <= 1.0:
            raise UserError(f"tasks.actions.malformed_score must be a finite number of at most 1, got {self.malformed_score}")
        if self.gate and not self.is_on:
            raise UserError("tasks.actions.gate is on, but there are no actions: set tasks.actions.preset or tasks.actions.tags")

    @property
    def is_on(self) -> bool:
        """True if any actions are required."""
        return bool(self.limits)

    @property
    def limits(self) -> Limits:
        """The limits of each tag: those of `tags`, or else of the preset."""
        if self.tags:
            return {tag: (bounds[0], bounds[1] if len(bounds) == 2 else None) for tag, bounds in self.tags.items()}
        return PRESETS[self.preset].limits if self.preset in PRESETS else {}

    @property
    def words(self) -> str:
        """The instruction that is appended to a question; "" for none."""
        if self.instruction is not None:
            return self.instruction
        return PRESETS[self.preset].instruction if self.preset in PRESETS and not self.tags else ""

    def find_problem(self, text: str) -> str:
        """Describe what is malformed in an answer; "" if nothing is.

        >>> Actions("divide").find_problem("<subproblem>2 + 3</subproblem> <solve>5</solve> <answer>5</answer>")
        '1 <subproblem> where at least 2 are asked for'
        """
        limits = self.limits
        actions, problem = parse(text, limits, strict=self.strict)
        return problem or _number_problem(actions, limits) or (_order_problem(actions, list(limits)) if self.ordered else "")


def parse(text: str, tags: Collection[str], *, strict: bool = False) -> tuple[list[Action], str]:
    """Parse a text into its actions up to the first error, and describe the error ("" without one).

    Takes linear time.

    >>> parse("First <plan>add</plan>, then <solve>5</solve>", ["plan", "solve"])
    ([Action(tag='plan', content='add'), Action(tag='solve', content='5')], '')
    >>> parse("<plan>add <solve>5</solve>", ["plan", "solve"])
    ([], '<solve> is opened within <plan>')
    """
    actions: list[Action] = []
    if len(text) > MAX_CHARACTERS:
        return actions, f"{len(text)} characters, more than {MAX_CHARACTERS}"
    opened, begins = "", 0
    for found in _ANY_TAG.finditer(text):
        is_closing, tag = bool(found[1]), found[2]
        if tag not in tags:
            if strict:
                return actions, f"unknown tag <{found[1]}{tag}>"
        elif not is_closing and opened:
            return actions, f"<{tag}> is opened within {'itself' if tag == opened else f'<{opened}>'}"
        elif not is_closing:
            opened, begins = tag, found.end()
        elif tag != opened:
            return actions, f"</{tag}> closes what is not open"
        else:
            content = text[begins : found.start()]
            if not content.strip():
                return actions, f"<{tag}> is empty"
            if len(actions) == MAX_ACTIONS:
                return actions, f"more than {MAX_ACTIONS} actions"
            actions.append(Action(tag, content))
            opened = ""
    return actions, f"<{opened}> is never closed" if opened else ""


def _number_problem(actions: Sequence[Action], limits: Limits) -> str:
    for tag, (least, most) in limits.items():
        number = sum(action.tag == tag for action in actions)
        if number < least or (most is not None and number > most):
            return f"{number} <{tag}> where {f'at least {least}' if number < least else f'at most {most}'} are asked for"
    return ""


def _order_problem(actions: Sequence[Action], order: Sequence[str]) -> str:
    for before, after in pairwise(action.tag for action in actions):
        if order.index(after) < order.index(before):
            return f"<{after}> comes behind <{before}>"
    return ""


def add_instruction(tasks: Sequence[Task], words: str) -> list[Task]:
    """Return the tasks with an instruction that is appended to each question; "" leaves them unchanged."""
    return [replace(task, instruction=words) for task in tasks] if words else list(tasks)
