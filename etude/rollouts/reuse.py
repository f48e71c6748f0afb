"""Attempts of a task's last visit as drafts of those of the next.

An attempt is a function of the policy and of the numbers that its key gives; here a key is of the task and the attempt, not of the step, so
that the policy as it is now draws again most of what it drew an epoch ago. What it draws again is found in one pass over the old attempt,
and only the rest is decoded (`etude.engine.drafts`). Log-probs are those of the policy as it is now, so nothing changes for the learner.

The idea is SPEC-RL's (arXiv 2509.23232). It accepts a draft's token with probability min(1, p / q), or more leniently, and draws the first
rejected place anew from p; for the result to follow p that draw had to be from max(0, p - q) / Z, and so q of the whole vocabulary to be
kept, for as many policies as an epoch has steps. Here nothing is kept but tokens: old and new token are the inverse distribution functions
of q and p at one uniform number. Whatever p is, the new one follows it: P(F_p^-1(u) = x) = p(x) for uniform u, and it is independent of
what the attempt's other numbers gave before it. Tokens are equal with probability Σ |I_p(x) ∩ I_q(x)|, the overlap of their intervals, at
most the 1 - TV(p, q) of the acceptance rule (0.943 against 0.947 where a quarter of the drafts were taken whole, `LOG.md`).

What this does not give, nor does any rule that keeps much of a draft: independent visits. A policy that learned from an attempt has been
shaped by its numbers, so given that policy they are not fresh: what it was rewarded for comes again more often than it would, and a group
without a right attempt stays so until the policy has changed there. Visits see new attempts in so far as the policy moved.

Identity: without an earlier visit, independent samples.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etude.rollouts.attempts import Group
from etude.tasks.task import Task

Own = tuple[int, ...]
"""An attempt's own tokens."""


def visits(keys: Iterable[str]) -> list[int]:
    """How often each task, by its key, came before in the same step: 0, but where a step runs over the end of an epoch.

    >>> visits(["a", "b", "a"])
    [0, 0, 1]
    """
    before: Counter[str] = Counter()
    found = []
    for key in keys:
        found.append(before[key])
        before[key] += 1
    return found


class Drafts:
    """The own tokens of the last attempts at every task."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], list[Own]] = {}

    def of(self, tasks: Sequence[Task], visits: Sequence[int], attempts: range) -> list[list[Own]]:
        """One for each task and attempt, by number; empty where there is none."""
        found = [self._last.get((task.key, visit), []) for task, visit in zip(tasks, visits, strict=True)]
        return [[own[number] if number < len(own) else () for number in attempts] for own in found]

    def keep(self, groups: Sequence[Group]) -> None:
        """These are a step's attempts, and the last ones now."""
        self._keep([(group.task.key, [attempt.own_tokens for attempt in group.attempts]) for group in groups])

    def keep_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """As `keep`, of rows `{"task", "index", "own_tokens"}` as the run folder has them."""
        groups: list[tuple[str, list[Own]]] = []
        for row in rows:
            if row["index"] == 0:
                groups.append((row["task"], []))
            groups[-1][1].append(tuple(row["own_tokens"]))
        self._keep(groups)

    def share(self, groups: Sequence[Group]) -> float:
        """Of the own tokens of a step's attempts, not kept yet, the share that their drafts had."""
        tasks = [group.task for group in groups]
        drafts = self.of(tasks, visits(task.key for task in tasks), range(max(len(group.attempts) for group in groups)))
        pairs = [
            (attempt.own_tokens, draft)
            for group, own in zip(groups, drafts, strict=True)
            for attempt, draft in zip(group.attempts, own, strict=False)
        ]
        return sum(num_equal(one, draft) for one, draft in pairs) / sum(len(one) for one, _ in pairs)

    def _keep(self, groups: Sequence[tuple[str, list[Own]]]) -> None:
        places = zip([key for key, _ in groups], visits(key for key, _ in groups), strict=True)
        self._last |= {place: own for place, (_, own) in zip(places, groups, strict=True)}


def num_equal(one: Own, other: Own) -> int:
    """Tokens that two attempts begin with in common."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
