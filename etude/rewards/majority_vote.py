"""Majority-vote reward: score an attempt by how many attempts at its task give the same answer, without a gold answer.

With G attempts at a task, n(a) of them with the answer a, the majority answer m (the first of equals), and s = n(m) / G:

    hard   score = 1 if an attempt's answer is m, else 0             TTRL, arXiv 2504.16084 eq. 2-4; SRT, arXiv 2505.21444 sec. 3
    soft   score = n(its answer) / G, 0 without an answer
    both   no score (None) if s < `min_vote_share`: the task is left out

Departures: TTRL votes with 64 attempts and trains on 32 of them, here all votes are trained on. Abstention is ours; TTRL and SRT train on
every task (`min_vote_share` 0, which is the identity). An attempt whose answer cannot be read votes for nothing, but counts in G.

If the majority is mostly right, practice on agreement works like practice on gold answers. Otherwise it makes the model more certain of
wrong answers, and one constant answer to everything scores best: see `etude.rollouts.collapse`. A few tasks with gold answers can calibrate
the vote share from which the majority is trusted (`calibrated_vote_share`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.votes import Tally, vote

COUNTED = ("agreement_tasks", "agreement_abstained")
"""Tasks that were voted on, and those with too little agreement."""
NEVER = 2.0
"""A vote share that no answer can reach."""


@dataclass(frozen=True)
class MajorityVoteSettings:
    """Settings of the majority-vote reward."""

    score: Literal["hard", "soft"] = "hard"
    """`hard` = 1 for the majority answer, else 0; `soft` = share of the attempts with the same answer."""
    min_vote_share: float = 0.0
    """Leave out tasks whose majority answer has a smaller share of the attempts, in [0, 1]; 0 = none."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_vote_share <= 1.0:
            raise UserError(f"majority_vote.min_vote_share must be in [0, 1], got {self.min_vote_share}")


class MajorityVoteReward:
    """Scores attempts by majority vote; all attempts at one task in a call vote together."""

    def __init__(self, how: MajorityVoteSettings) -> None:
        self.how = how
        self.min_vote_share = how.min_vote_share
        """The vote share from which a majority is trusted now; a callback may change it."""
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        """Return one reward for each (text, task), in order.

        `vote_share` among its parts is the share of the attempts with the same answer.

        >>> task = Task("3 + 4?", verifier="numeric")
        >>> [reward.score for reward in MajorityVoteReward(MajorityVoteSettings()).judge([("7", task), ("8", task), ("It is 7.", task)])]
        [1.0, 0.0, 1.0]
        """
        votes = [vote(text, task) for text, task in pairs]
        by_task: dict[str, list[str | None]] = {}
        for (_, task), answer in zip(pairs, votes, strict=True):
            by_task.setdefault(task.key, []).append(answer)
        tallies, least = {key: Tally.of(answers) for key, answers in by_task.items()}, self.min_vote_share
        self.counts["agreement_tasks"] += len(tallies)
        self.counts["agreement_abstained"] += sum(tally.share(tally.winner) < least for tally in tallies.values())
        return [self._reward(answer, tallies[task.key], least) for (_, task), answer in zip(pairs, votes, strict=True)]

    def _reward(self, answer: str | None, tally: Tally, least: float) -> Reward:
        share, most = tally.share(answer), tally.share(tally.winner)
        parts = {"parsable": float(answer is not None), "vote_share": share}
        if most < least:
            wanted = "no majority is believed" if least > 1 else f"{least:.2f} are asked for"
            return Reward(None, parts, message=f"too few attempts agree: {most:.2f} of them at most, {wanted}")
        score = share if self.how.score == "soft" else float(answer is not None and answer == tally.winner)
        message = "" if score == 1.0 else f"{share:.2f} of the attempts give this answer, {most:.2f} give {_short(tally.winner)}"
        return Reward(score, parts, message=message)


def calibrated_vote_share(found: Sequence[tuple[float, bool]], min_vote_share: float, target_precision: float) -> float:
    """Return the vote share from which a majority is trusted, given what was `found` at tasks with gold answers: for each the winner's
    share, and whether it was right. It is the least share, at least `min_vote_share`, such that `target_precision` of the winners with this
    share or more are right; `NEVER` if there is none.

    >>> calibrated_vote_share([(0.25, False), (0.5, True), (0.5, False), (1.0, True)], 0.0, 0.6)
    0.5
    """
    for least in sorted({share for share, _ in found if share >= min_vote_share}):
        right = [is_right for share, is_right in found if share >= least]
        if sum(right) >= target_precision * len(right):
            return least
    return NEVER


def _short(answer: str | None) -> str:
    return "no answer" if answer is None else repr(answer[:60])
