"""Problems that the policy writes in a step beside the tasks it was given: written, checked, solved, judged, and its writing rewarded.

svs        variational problem synthesis (SvS, arXiv 2508.14029, Alg. 1): from right attempts at a task whose share of right attempts lies
           in `source_window` the policy writes variants, without seeing the task; the task's answer is theirs. An attempt at a variant is
           right where the task's verifier says so; writing is rewarded with 1 where the share of right ones lies in `window`, else 0 (any
           right one at all would reward a problem that tells its answer)
proposer   the policy writes problems like those of the step; an answer is taken for right where `min_share` of the attempts give it
           (`etude.rewards.agreement`), and with p the share that give the answer of most, writing is rewarded with learnability
           4 p (1 - p), which is 1 where half agree and 0 where all do (p (1 - p) of Foster and Foerster 2025, arXiv 2502.12272, in [0, 1];
           R-Zero, arXiv 2508.05004, has 1 - 2 |p - 1/2|)

A flawed problem (`etude.rollouts.self_made.problems`) is solved by nobody, and scores 0 as writing. Attempts at the given tasks, at
problems and at writing them are groups of one update. Departures from SvS: examples are shown, since small models do not write problems
unasked; at most `sources` attempts are written from in a step, chosen by seed, so that a step costs what one can afford.

Identity: `none`, or a step without a source, is the step without it.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, NamedTuple

from etude.device.machine import room_tokens
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.measure import Verify
from etude.learn.example import Example as Demonstration
from etude.learn.example import demonstration
from etude.randomness import seed_for
from etude.recipes.settings import PracticeSettings
from etude.rewards.agreement import Agreement, AgreementFeedback
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.prompts import render_answer, render_prompt, shown_answer, without_control
from etude.rollouts.samples import sample_groups
from etude.rollouts.self_made.problems import FLAWS, asking, flaw_of, read_problem
from etude.rollouts.self_made.prompts import Example, writing_of_problem, writing_of_variant
from etude.rollouts.self_made.settings import SelfMade
from etude.rollouts.settings import Exploration
from etude.tasks.task import Task
from etude.tasks.votes import vote
from etude.training.ledger import Judged


class Source(NamedTuple):
    """What problems are written from."""

    task: Task
    """Whose answer, verifier and messages they have; of a proposer, an example of the kind, without an answer."""
    writing: Task
    shown: tuple[Task, ...]
    """The tasks that a problem may be a copy of."""


@dataclass
class SelfMaking:
    """The problems of one run in progress."""

    explore: Exploration
    engine: TransformersEngine
    judge: Verify
    """Scores attempts at variants."""
    render: Callable[[Task], tuple[int, ...]]
    room_tokens: int
    """How long a prompt may be for the longest answer or problem to follow."""
    seed: int
    measured: Collection[str]
    """Keys of the evaluation's items."""

    def beside(self, step: int, judged: Judged) -> Judged:
        """What step `step`, counted from 1, found, with the groups that are made of it: of each source the writing, then of each problem
        the attempts at it. Their number is `Judged.made`.
        """
        clock = time.perf_counter()
        sources = self._sources(step, judged)
        written = self._sampled([source.writing for source in sources], self.explore.self_made.problems, step, "write", is_writing=True)
        problems, flaws = self._read(sources, written)
        places = [(place, number) for place, row in enumerate(problems) for number, problem in enumerate(row) if problem]
        tasks = [task for row in problems for task in row if task]
        solved = self._sampled(tasks, self.explore.num_samples, step, "solve")
        sampled = time.perf_counter() - clock
        verdicts = self._judged(solved)
        worth = dict(zip(places, map(self._worth, verdicts), strict=True))
        scores = [[worth.get((place, number), 0.0) for number in range(len(group.attempts))] for place, group in enumerate(written)]
        seconds = dict(judged.seconds)
        seconds["explore_seconds"] += sampled
        seconds["feedback_seconds"] += time.perf_counter() - clock - sampled
        rewards = [
            [Verdict(score, message=flaw and f"the problem is flawed: {flaw}") for score, flaw in zip(*both, strict=True)]
            for both in zip(scores, flaws, strict=True)
        ]
        counts = {**judged.counts, **_counts([flaw for row in flaws for flaw in row], scores, verdicts)}
        groups = [*judged.groups, *written, *solved]
        return replace(
            judged,
            groups=groups,
            verdicts=[*judged.verdicts, *rewards, *verdicts],
            counts=counts,
            seconds=seconds,
            made=len(written) + len(solved),
        )

    def _sources(self, step: int, judged: Judged) -> list[Source]:
        """The step's, of those with room, as many as are wanted, by seed; its keys count the steps before."""
        how = self.explore.self_made
        found = WAYS[how.method].sources(self, step, judged)
        fitting = [source for source in found if len(self.render(source.writing)) <= self.room_tokens]
        order = sorted(range(len(fitting)), key=lambda place: seed_for(self.seed, "sources", step - 1, place))
        return [fitting[place] for place in sorted(order[: how.sources])]

    def variations(self, step: int, judged: Judged) -> list[Source]:
        """One of each different right attempt at a task in the window, which is shown with right attempts at other tasks."""
        right = [_right(group, row) for group, row in zip(judged.groups, judged.verdicts, strict=True)]
        solved = [(group.task, own[0]) for group, own in zip(judged.groups, right, strict=True) if own]
        window, found = self.explore.self_made.source_window, []
        for place, (group, row, own) in enumerate(zip(judged.groups, judged.verdicts, right, strict=True)):
            known = sum(verdict.score is not None for verdict in row)
            is_in = own and window.admits(sum(verdict.is_right for verdict in row), known)
            for text in dict.fromkeys(attempt.text for attempt in own) if is_in else ():
                others = [(task, attempt) for task, attempt in solved if task.key != group.task.key]
                shots = self._drawn(others, step - 1, "shots", place, text)
                examples: list[Example] = [(task.question, attempt.text) for task, attempt in shots]
                writing = writing_of_variant(group.task, text, examples)
                found.append(Source(group.task, writing, (group.task, *(task for task, _ in shots))))
        return found

    def proposals(self, step: int, judged: Judged) -> list[Source]:
        """By examples among the step's tasks; what is written has the first one's form, and no answer that anybody knows."""
        tasks = list({group.task.key: group.task for group in judged.groups}.values())
        found = []
        for number in range(self.explore.self_made.sources):
            shown = self._drawn(tasks, step - 1, "proposal", number)
            own = replace(shown[0], answer=None)
            found.append(Source(own, writing_of_problem(own, [task.question for task in shown]), tuple(shown)))
        return found

    def _drawn(self, items: Sequence[Any], *names: object) -> list[Any]:
        """As many as are shown, by seed."""
        order = sorted(range(len(items)), key=lambda place: seed_for(self.seed, *names, place))
        return [items[place] for place in order[: self.explore.self_made.shots]]

    def _sampled(self, tasks: Sequence[Task], number: int, step: int, kind: str, *, is_writing: bool = False) -> list[Group]:
        if not tasks:
            return []
        longest = self.explore.self_made.max_new_tokens if is_writing else self.explore.max_new_tokens
        sizes: dict[str, Any] = {"num_samples": number, "max_new_tokens": longest, "sampling": self.explore.sampling}
        prompts = [self.render(task) for task in tasks]
        return sample_groups(self.engine, tasks, prompts, **sizes, names=(self.seed, step, kind))

    def _read(self, sources: Sequence[Source], written: Sequence[Group]) -> tuple[list[list[Task | None]], list[list[str]]]:
        """The problem that each text states, None where it is flawed, and the flaw."""
        problems: list[list[Task | None]] = []
        flaws: list[list[str]] = []
        keys: set[str] = set()
        for source, group in zip(sources, written, strict=True):
            problems.append([])
            flaws.append([])
            for attempt in group.attempts:
                text, is_finished = read_problem(attempt.text, attempt.finish)
                problem = asking(source.task, text, origin="a problem of its own")
                checks: dict[str, Any] = {"written": keys, "measured": self.measured, "max_overlap": self.explore.self_made.max_overlap}
                flaw = flaw_of(problem, is_finished=is_finished, shown=source.shown, **checks)
                if not flaw and len(self.render(problem)) > self.room_tokens:
                    flaw = "unfinished"
                keys.add(problem.key)
                problems[-1].append(None if flaw else problem)
                flaws[-1].append(flaw)
        return problems, flaws

    def _judged(self, solved: Sequence[Group]) -> list[list[Verdict]]:
        judge = WAYS[self.explore.self_made.method].judge(self)
        flat = iter(judge([(attempt.text, group.task) for group in solved for attempt in group.attempts]))
        return [[next(flat) for _ in group.attempts] for group in solved]

    def _worth(self, row: Sequence[Verdict]) -> float:
        """The reward of having written a problem whose attempts were judged so."""
        return WAYS[self.explore.self_made.method].worth(self.explore.self_made, row)


class Way(NamedTuple):
    """One way to make problems."""

    sources: Callable[[SelfMaking, int, Judged], list[Source]]
    """What a step's problems may be written from."""
    judge: Callable[[SelfMaking], Verify]
    """What scores attempts at them."""
    worth: Callable[[SelfMade, Sequence[Verdict]], float]
    """The reward of having written a problem, by the verdicts on the attempts at it."""


def _is_in_window(how: SelfMade, row: Sequence[Verdict]) -> float:
    known = [verdict for verdict in row if verdict.score is not None]
    return float(how.window.admits(sum(verdict.is_right for verdict in known), len(known)))


def _learnability(how: SelfMade, row: Sequence[Verdict]) -> float:
    p = sum(verdict.is_right for verdict in row) / len(row)  # nothing where too few agree
    return 4 * p * (1 - p)


WAYS = {
    "svs": Way(SelfMaking.variations, lambda making: making.judge, _is_in_window),
    "proposer": Way(
        SelfMaking.proposals, lambda making: AgreementFeedback(Agreement(min_share=making.explore.self_made.min_share)).judge, _learnability
    ),
}
"""By the name of `explore.self_made.method`."""


def self_making_for(
    settings: PracticeSettings,
    engine: TransformersEngine,
    judge: Verify,
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Task],
    measured: Sequence[Task],
) -> SelfMaking | None:
    """What makes problems beside these tasks, none of them an item of `measured`; `judge` scores attempts at them. None where it is off.
    Raises UserError for tasks whose answers no other problem can keep.
    """
    explore = settings.explore
    if not explore.self_made.is_on:
        return None
    choice = next((task for task in tasks if task.verifier == "choice"), None)
    if choice:
        raise UserError(
            f"explore.self_made {explore.self_made.method} writes problems, but no choices to them, and the answer of "
            f"{choice.origin or 'a task'} is a letter among its own: set explore.self_made to none, or give tasks without choices"
        )

    def render(task: Task) -> tuple[int, ...]:  # what a model wrote stands in it
        return render_prompt(tokenizer, asking(task, without_control(tokenizer, task.question)))

    room = room_tokens(model, max(explore.max_new_tokens, explore.self_made.max_new_tokens))
    return SelfMaking(explore, engine, judge, render, room, settings.seed, {task.key for task in measured})


def writing_demonstrations(
    tokenizer: Any, tasks: Sequence[Task], how: SelfMade, *, n: int, seed: int, max_tokens: int
) -> list[Demonstration]:
    """The first n of the tasks that demonstrate answers as demonstrations of writing: their problems are written, behind other ones, by
    turns as a variant's writer and as a proposer is asked. One longer than `max_tokens` is left out.
    """
    if n > len(tasks):
        raise UserError(f"warm_start.writing is {n}, but there are only {len(tasks)} demonstrations: lower it, or raise warm_start.n")
    found = []
    for place, task in enumerate(tasks[:n]):
        others = [other for other in tasks if other.key != task.key]
        order = sorted(range(len(others)), key=lambda other: seed_for(seed, "writing", place, other))
        shown = [others[other] for other in order[: how.shots]]
        if place % 2 == 0:
            writing = writing_of_variant(task, shown_answer(task), [(other.question, shown_answer(other)) for other in shown])
        else:
            writing = writing_of_problem(task, [other.question for other in shown])
        example = demonstration(render_prompt(tokenizer, writing), render_answer(tokenizer, f" {task.question}"))
        found.append(example)
    return [example for example in found if len(example.prompt) + len(example.completion) <= max_tokens]


def _right(group: Group, row: Sequence[Verdict]) -> list[Attempt]:
    """The right attempts of a group that say something."""
    pairs = zip(group.attempts, row, strict=True)
    return [attempt for attempt, verdict in pairs if verdict.is_right and attempt.text.strip() and vote(attempt.text, group.task)]


def _counts(flaws: Sequence[str], scores: Sequence[Sequence[float]], verdicts: Sequence[Sequence[Verdict]]) -> dict[str, float]:
    """What became of the problems: metrics of the step."""
    of = Counter(flaws)
    rewards, known = [score for row in scores for score in row], [v.score for row in verdicts for v in row if v.score is not None]
    counts: dict[str, float] = {"made": len(flaws), "made_valid": of[""], "made_rewarded": sum(reward > 0 for reward in rewards)}
    counts |= {f"made_{flaw}": of[flaw] for flaw in FLAWS}
    return counts | ({"made_reward": fmean(rewards)} if rewards else {}) | ({"made_score": fmean(known)} if known else {})
