"""Attempts and groups: what rollouts hand to rewards and to the learner."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, groupby

from etude.engine.completion import Completion, Finish
from etude.tasks.task import Task

HINTED, DECODED = "hint", "decoded"
"""Views of attempts that are no samples of the policy at the task's own prompt: one saw the answer, one was made of other attempts."""


class Source(IntEnum):
    """Who wrote a token; only own tokens have an advantage."""

    GIVEN = 0
    OWN = 1
    FEEDBACK = 2


@dataclass(frozen=True)
class Attempt:
    """One try at a task."""

    tokens: tuple[int, ...]
    sources: tuple[Source, ...]
    """One for each token."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs of the own tokens, in order."""
    text: str
    """What the model wrote, as the verifier reads it: in its last turn."""
    finish: Finish
    key: int
    policy_version: int
    view: str = "full"
    turns: int = 1
    step_lengths: tuple[int, ...] = ()
    """Own tokens of each of its steps; empty where nobody parted it."""
    step_shares: tuple[float, ...] = ()
    """Of each of its steps, which share of the policy's answers the attempt stands for there (`Tree.group`); empty: as much as every other
    of its group, as independent ones do."""
    before: tuple[str, ...] = ()
    """What was said before the last turn, in order: a text of the model's, what it was told of it, and so on."""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.tokens):
            raise ValueError(f"{len(self.sources)} sources for {len(self.tokens)} tokens")
        if self.sources.count(Source.OWN) != len(self.logprobs):
            raise ValueError(f"{len(self.logprobs)} log-probs for {self.sources.count(Source.OWN)} own tokens")
        if self.step_lengths and sum(self.step_lengths) != len(self.logprobs):
            raise ValueError(f"steps of {sum(self.step_lengths)} tokens for {len(self.logprobs)} own tokens")

    @staticmethod
    def of(prompt: Sequence[int], completion: Completion) -> "Attempt":
        """Return a single turn: the prompt's tokens given, the completion's own."""
        return Attempt(
            tokens=(*prompt, *completion.tokens),
            sources=(Source.GIVEN,) * len(prompt) + (Source.OWN,) * len(completion.tokens),
            logprobs=completion.logprobs,
            text=completion.text,
            finish=completion.finish,
            key=completion.key,
            policy_version=completion.policy_version,
            view=completion.view,
        )

    @property
    def is_sample(self) -> bool:
        """Whether the policy drew it, unhelped."""
        return self.view not in (HINTED, DECODED)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens before the first own one."""
        return self.tokens[: self.sources.index(Source.OWN)]

    @property
    def turn_spans(self) -> list[tuple[int, int]]:
        """Where each turn begins and ends among the tokens: a turn is a run of own tokens."""
        runs = [(source, sum(1 for _ in run)) for source, run in groupby(self.sources)]
        ends = accumulate(length for _, length in runs)
        return [(end - length, end) for (source, length), end in zip(runs, ends, strict=True) if source == Source.OWN]

    @property
    def own_tokens(self) -> tuple[int, ...]:
        return tuple(token for token, source in zip(self.tokens, self.sources, strict=True) if source == Source.OWN)

    @property
    def num_own_tokens(self) -> int:
        return len(self.logprobs)


@dataclass(frozen=True)
class Group:
    """The attempts at one task that are compared with each other."""

    task: Task
    attempts: tuple[Attempt, ...]
