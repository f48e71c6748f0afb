"""Choose the next tasks by the policy's results: its weaknesses (SwS), or levels that rise and fall with success.

A curriculum observes every step's groups, whose scores must lie in [0, 1], so that 1 - score is a failure. Let a_1 .. a_t be the mean
scores of a task's visits, f = 1 - mean(a) its failure rate, and F_D the failure rate of its category, ((Σ 1 - a) + 1) / (n + 2) over the
category's last n <= `memory` groups:

    weakness   a task is sampled with weight  F_D · u
               u = 1                if it was never visited
               u = `rest`           if its last group had no variance: all right or all wrong, nothing to learn from
               u = 1 + f · [slope of a <= 0]   else: more for a task that fails and does not improve
    levels     tasks belong to levels of rising difficulty; tasks of the current level have weight 1, of lower ones `rest`, of higher
               ones 0. After `level_groups` groups at the current level their mean score raises it (at `raise_at` or above) or lowers it
               (at `lower_at` or below), and counting restarts

After SwS (arXiv 2506.08989, sec. 2.1 and eq. 1: F_D by category; a problem is weak where max a < 0.5 and the slope of a is negative).
Departures: weak problems are sampled again rather than written by a larger model; a slope of 0 counts as no progress, since otherwise never
solved problems would never be weak; f instead of a threshold at 0.5; admission by a group's variance, not by its mean, since a group
without variance has no advantage whatever its mean is (prime-rl filters so).

Tasks of a step are sampled without replacement, by keys u^(1 / weight) (Efraimidis and Spirakis 2006), where u is a random number of the
run's seed, the step and the task. Without a curriculum every task comes once an epoch (`etude.rollouts.order`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pvariance
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

from etude.errors import UserError, at_least
from etude.randomness import seed_for, uniforms
from etude.rollouts.attempts import Group
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.templates import fill_template

POOLS = {"hard": 0.25, "medium": 0.75, "easy": 1.0}
"""Pools of tasks, with the largest mean score of their visits."""


@dataclass(frozen=True)
class CurriculumSettings:
    """Curriculum: how the tasks of a step are chosen."""

    method: Literal["weakness", "levels"]
    """`weakness` = more of the tasks that fail and do not improve; `levels` = difficulty rises and falls with success."""
    category: str | None = None
    """`weakness`: category of a task, as a format string over its metadata, such as "{direction}"; null = one category."""
    rest: float = 0.1
    """Weight of tasks whose last group had no signal, and of levels below the current one, in (0, 1]."""
    memory: int = 64
    """`weakness`: last groups of a category that its failure rate is taken from."""
    levels: list[dict[str, Any]] = field(default_factory=list)
    """`levels`: parameters of the family at each level, besides tasks.parameters, from easy to hard."""
    own_levels: int = 0
    """`levels`: how many of the family's own levels to use instead; 0 = none."""
    level_groups: int = 32
    """`levels`: groups at a level before it may change."""
    raise_at: float = 0.7
    """`levels`: mean score from which the level rises, in (lower_at, 1]."""
    lower_at: float = 0.2
    """`levels`: mean score at or below which the level falls, in [0, raise_at)."""

    def __post_init__(self) -> None:
        at_least("curriculum.memory", self.memory, 1)
        at_least("curriculum.level_groups", self.level_groups, 1)
        at_least("curriculum.own_levels", self.own_levels, 0)
        if not 0.0 < self.rest <= 1.0:
            raise UserError(f"curriculum.rest must be above 0 and at most 1, got {self.rest}")
        if not 0.0 <= self.lower_at < self.raise_at <= 1.0:
            raise UserError(
                f"curriculum.lower_at and raise_at must be shares with lower_at < raise_at, got {self.lower_at} and {self.raise_at}"
            )
        if self.levels and self.own_levels:
            raise UserError("curriculum.levels and own_levels are two ways to say the same: set one of them")
        if (self.method == "levels") != bool(self.levels or self.own_levels):
            raise UserError(
                f"curriculum.method is {self.method}, and there are {len(self.levels) or self.own_levels} levels: levels need the "
                "method levels, and it needs curriculum.levels or own_levels"
            )


class Visit(NamedTuple):
    """The result of a group."""

    place: int
    """Index of its task."""
    mean: float
    variance: float
    """Variance of its scores."""


class Curriculum:
    """The history of a run's tasks, and the weights that follow from it."""

    def __init__(self, tasks: Sequence[Task], how: CurriculumSettings, seed: int) -> None:
        """Read levels and categories of the tasks. Raises UserError if the category names a missing field."""
        self.how, self.seed = how, seed
        self.places = {task.key: place for place, task in reversed(list(enumerate(tasks)))}
        """First index of every task; duplicates are sampled and counted as the first."""
        self.levels = [int(task.metadata.get("level", 0)) for task in tasks]
        self.categories = [
            "" if how.category is None else fill_template("curriculum.category", how.category, _names(task)) for task in tasks
        ]
        self.visits: list[Visit] = []
        self.level, self.since = 0, 0
        """The current level, and the number of visits before it was set."""

    def draw(self, step: int, number: int) -> list[int]:
        """Sample the indices of the tasks of step `step`, counted from 1; at most all tasks. Keys count the steps before."""
        weights = np.array(self.weights())
        keys = np.array([seed_for("curriculum", self.seed, step - 1, place) for place in range(len(weights))], dtype=np.uint64)
        numbers = uniforms(keys, np.zeros(len(keys), dtype=np.int64))
        with np.errstate(divide="ignore"):
            ranks = np.where(weights > 0, np.log(numbers) / weights, -np.inf)
        order = np.argsort(-ranks, kind="stable")[: min(number, int((weights > 0).sum()))]
        return [int(place) for place in order]

    def weights(self) -> list[float]:
        """Return the current weight of every task; 0 for duplicates."""
        firsts = set(self.places.values())
        return [weight * (place in firsts) for place, weight in enumerate(self._weights())]

    def _weights(self) -> list[float]:
        if self.how.method == "levels":
            return [1.0 if level == self.level else self.how.rest * (level < self.level) for level in self.levels]
        failing, own = self.failure_rates(), self._by_task()
        return [failing[category] * self._need(own.get(place, [])) for place, category in enumerate(self.categories)]

    def failure_rates(self) -> dict[str, float]:
        """Return the failure rate of every category over its last groups, with one failure and one success added."""
        found: dict[str, list[float]] = {category: [] for category in self.categories}
        for visit in self.visits:
            found[self.categories[visit.place]].append(1 - visit.mean)
        last = {category: failed[-self.how.memory :] for category, failed in found.items()}
        return {category: (sum(failed) + 1) / (len(failed) + 2) for category, failed in last.items()}

    def observe(self, groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
        """Record a step's groups, except those without any score, and return metrics of the new state."""
        for group, row in zip(groups, rewards, strict=True):
            scores = [reward.score for reward in row if reward.score is not None]
            if scores:
                self.visits.append(Visit(self.places[group.task.key], fmean(scores), pvariance(scores)))
        if self.how.method == "levels":
            self._move()
            return {"level": float(self.level)}
        rates = sorted(self.failure_rates().items())
        return self._pools() | {f"failing_{name}" if name else "failing": rate for name, rate in rates}

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """Return all visits and the level."""
        import torch

        visits = torch.tensor([list(visit) for visit in self.visits], dtype=torch.float64).reshape(-1, 3)
        return {"visits": visits, "level": torch.tensor([self.level, self.since])}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Replace the state with that of `state_dict`."""
        self.visits = [Visit(int(place), mean, variance) for place, mean, variance in tensors["visits"].tolist()]
        self.level, self.since = tensors["level"].tolist()

    def _move(self) -> None:
        """Change the level after enough groups at it."""
        own = [visit.mean for visit in self.visits[self.since :] if self.levels[visit.place] == self.level]
        if len(own) < self.how.level_groups:
            return
        mean, most = fmean(own[-self.how.level_groups :]), max(self.levels)
        moved = (
            min(most, self.level + 1) if mean >= self.how.raise_at else max(0, self.level - 1) if mean <= self.how.lower_at else self.level
        )
        if moved != self.level:
            self.level, self.since = moved, len(self.visits)

    def _need(self, own: Sequence[Visit]) -> float:
        """Return the factor u of a task by its visits."""
        if not own:
            return 1.0
        if own[-1].variance == 0:
            return self.how.rest
        means = [visit.mean for visit in own]
        return 1.0 + (1.0 - fmean(means)) * (slope(means) <= 0)

    def _by_task(self) -> dict[int, list[Visit]]:
        found: dict[int, list[Visit]] = defaultdict(list)
        for visit in self.visits:
            found[visit.place].append(visit)
        return found

    def _pools(self) -> dict[str, float]:
        """Return the share of the visited tasks in each pool of difficulty."""
        means = [fmean(visit.mean for visit in own) for own in self._by_task().values()]
        counts = dict.fromkeys(POOLS, 0)
        for mean in means:
            counts[next(name for name, most in POOLS.items() if mean <= most)] += 1
        return {f"pool_{name}": count / len(means) for name, count in counts.items()} if means else {}


def slope(values: Sequence[float]) -> float:
    """Return the least-squares slope of values in order; 0 of a single one.

    >>> slope([0.0, 0.5, 1.0]), slope([0.5])
    (0.5, 0.0)
    """
    n = len(values)
    middle, mean = (n - 1) / 2, fmean(values)
    spread = sum((place - middle) ** 2 for place in range(n))
    return sum((place - middle) * (value - mean) for place, value in enumerate(values)) / spread if n > 1 else 0.0


def _names(task: Task) -> dict[str, Any]:
    """Return the fields that a category may name: the metadata, and of a family its entry's."""
    entry = task.metadata.get("entry")
    return {**task.metadata, **(entry["metadata"] if isinstance(entry, Mapping) else {})}
