"""From which share of the votes on a majority is believed: asked anew every few steps, at tasks with gold answers that nobody practises on.

What was found stands in the ledger with the step before which it was asked, and in its metrics, so that a resumed run asks nothing again.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.measure import Verify
from etude.recipes.settings import PracticeSettings
from etude.rewards.agreement import AgreementFeedback, believed_share
from etude.rollouts.attempts import Group
from etude.rollouts.samples import sample_groups
from etude.tasks.task import Task
from etude.tasks.votes import Tally, vote
from etude.training.ledger import Judged
from etude.training.run_folder import RunFolder

LEAST = "agreement_min_share"
"""What the share is called among a step's metrics."""


@dataclass(frozen=True)
class Asked:
    """What labelled tasks said before a step."""

    share: float
    tokens: int
    seconds: float

    def beside(self, judged: Judged) -> Judged:
        """A step's attempts with the share that was believed from on, and with what asking cost."""
        tokens = self.tokens + sum(attempt.num_own_tokens for group in judged.groups for attempt in group.attempts)
        seconds = {**judged.seconds, "explore_seconds": judged.seconds["explore_seconds"] + self.seconds}
        counts: dict[str, float] = {**judged.counts, LEAST: self.share, "sampled_tokens": tokens}
        return replace(judged, counts=counts, seconds=seconds)


class Believing:
    """Keeps the least share of an agreement's votes what the labelled tasks say that it has to be."""

    def __init__(
        self,
        agreement: AgreementFeedback,
        sample: Callable[[int], list[Group]],
        judge: Verify,
        last: Callable[[], float | None],
    ) -> None:
        """`sample` makes attempts at the labelled tasks before a step, counted from 1; `judge` knows their answers; `last` is the share of
        the step before, None where there was none or a gate fell back behind it.
        """
        self.agreement, self.sample, self.judge, self.last = agreement, sample, judge, last

    def ask(self, step: int) -> Asked:
        """Set the share for step `step`, counted from 1: the last one, or by asking where it is time to."""
        clock, groups, share = time.perf_counter(), list[Group](), self.last()
        if share is None or (step - 1) % self.agreement.how.probe_every == 0:
            groups = self.sample(step)
            share = believed_share(shares_and_truth(groups, self.judge), self.agreement.how)
        believed = share
        self.agreement.min_share = lambda: believed
        tokens = sum(attempt.num_own_tokens for group in groups for attempt in group.attempts)
        return Asked(share, tokens, time.perf_counter() - clock)


Items = Sequence[tuple[Task, tuple[int, ...]]]
"""Tasks with their prompts as token ids."""


def without_labelled(items: Items, n: int, shown: Collection[str]) -> tuple[Items, Items]:
    """The n first different tasks of which no demonstration has the key (`shown`: there the model knows better than elsewhere), which are
    only asked about, and those to practise on. Raises UserError where none is left.
    """
    if n == 0:
        return [], items
    unseen: dict[str, tuple[Task, tuple[int, ...]]] = {}
    for task, prompt in items:
        if task.key not in shown:
            unseen.setdefault(task.key, (task, prompt))
    labelled = list(unseen.values())[:n]
    asked = {task.key for task, _ in labelled}
    left = [(task, prompt) for task, prompt in items if task.key not in asked]
    if len(labelled) < n or not left:
        raise UserError(
            f"agreement.probe_n is {n}, but there are only {len(unseen)} different tasks that no demonstration shows, and one at least "
            "must be left to practise on: lower it, or give more tasks"
        )
    return labelled, left


def believing_for(
    settings: PracticeSettings,
    agreement: AgreementFeedback | None,
    labelled: Items,
    engine: TransformersEngine,
    judge: Verify,
    folder: RunFolder,
) -> Believing | None:
    """By these tasks with their prompts; None where nobody votes or there are none. Raises UserError for a task without a gold answer."""
    if agreement is None or not labelled:
        return None
    for task, _ in labelled:
        if task.answer is None:
            raise UserError(f"agreement.probe_n is {len(labelled)}, but {task.origin}, one of the first, has no answer: put others first")
    explore = settings.explore

    def sample(step: int) -> list[Group]:
        tasks, prompts = zip(*labelled, strict=True)
        sizes: dict[str, Any] = {"num_samples": explore.num_samples, "max_new_tokens": explore.max_new_tokens}
        names = settings.seed, "agreement_probe", step - 1  # keys count the steps before
        return sample_groups(engine, tasks, prompts, **sizes, sampling=explore.sampling, names=names)

    def last() -> float | None:
        rows = [row for row in folder.log_rows("metrics.jsonl") if row["phase"] == "practice"]
        has_fallen = bool(rows) and rows[-1].get("gate_passed") == 0  # so that the share was that of a model which is no more
        return rows[-1][LEAST] if rows and not has_fallen else None

    return Believing(agreement, sample, judge, last)


def shares_and_truth(groups: Sequence[Group], judge: Verify) -> list[tuple[float, bool]]:
    """Of each group whose attempts give any answer, the majority's share of the votes and whether it is right."""
    found: list[tuple[float, str, Task]] = []
    for group in groups:
        votes = [vote(attempt.text, group.task) for attempt in group.attempts]
        tally = Tally.of(votes)
        if tally.winner is not None:
            found.append((tally.share(tally.winner), group.attempts[votes.index(tally.winner)].text, group.task))
    verdicts = judge([(text, task) for _, text, task in found])
    return [(share, verdict.is_right) for (share, _, _), verdict in zip(found, verdicts, strict=True)]
