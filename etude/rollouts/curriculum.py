"""Which tasks come next, by how the policy did: its weaknesses (SwS), or levels that rise and fall with success.

A curriculum observes every step's groups, whose scores must lie in [0, 1], so that 1 - score is a failure. With a_1 .. a_t the mean scores
of a task's visits, f = 1 - mean(a) its failure rate, and F_D that of its category's last groups, ((Σ 1 - a) + 1) / (n + 2) over the last n
<= `memory` of them:

    weakness   a task is drawn with weight  F_D · u
               u = 1                where it was never visited
               u = `rest`           where its last group had no variance: all right or all wrong, nothing to learn from
               u = 1 + f · [slope of a <= 0]   else: more often where it fails and does not get better
    levels     tasks belong to levels of rising difficulty; the present level's have weight 1, those below `rest`, those above 0. After
               `level_groups` groups at the present level their mean score raises it (at `raise_at` or above) or lowers it (at `lower_at`
               or below), and counting begins anew

After SwS (arXiv 2506.08989, sec. 2.1 and eq. 1: F_D by category; a problem is weak where max a < 0.5 and the slope of a is negative).
Departures: weak problems are drawn again rather than written by a larger model; a slope of 0 counts as no progress, or problems that were
never solved would never be weak; f instead of a threshold at 0.5; admission by a group's variance, not by its mean, since a group without
variance has no advantage to give whatever its mean is (prime-rl filters so).

Tasks of a step are drawn without replacement, by keys u^(1 / weight) (Efraimidis and Spirakis 2006), where u is a number of the run's seed,
the step and the task. Without a curriculum every task comes once an epoch (`etude.rollouts.order`).
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
"""Pools of tasks by the mean score of their visits, up to these."""


@dataclass(frozen=True)
class CurriculumSettings:
    """Curriculum: how the tasks of a step are chosen."""

    method: Literal["weakness", "levels"]
    """`weakness`: more of what fails and does not get better; `levels`: as hard as the policy can take."""
    category: str | None = None
    """`weakness`: what tells a task's category, a format string over its metadata, such as "{direction}"; one category unless given."""
    rest: float = 0.1
    """Weight of tasks whose last group had nothing to learn from, and of levels below the present one."""
    memory: int = 64
    """`weakness`: last groups of a category that its failure rate is taken from."""
    levels: list[dict[str, Any]] = field(default_factory=list)
    """`levels`: parameters of the family on each level, beside tasks.parameters, from easy to hard."""
    own_levels: int = 0
    """`levels`: so many of the levels that the family itself has, instead."""
    level_groups: int = 32
    """Groups at a level after which it may change."""
    raise_at: float = 0.7
    """Mean score from which on the level rises."""
    lower_at: float = 0.2
    """Mean score down from which it falls."""

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
    """What a group came to."""

    place: int
    """Of its task among all."""
    mean: float
    variance: float
    """Of its scores."""


class Curriculum:
    """The history of a run's tasks, and what follows from it."""

    def __init__(self, tasks: Sequence[Task], how: CurriculumSettings, seed: int) -> None:
        """Raises UserError where the category names what a task does not have."""
        self.how, self.seed = how, seed
        self.places = {task.key: place for place, task in reversed(list(enumerate(tasks)))}
        """Of every task its first place: one that stands there again is drawn and counted as the first."""
        self.levels = [int(task.metadata.get("level", 0)) for task in tasks]
        self.categories = [
            "" if how.category is None else fill_template("curriculum.category", how.category, _names(task)) for task in tasks
        ]
        self.visits: list[Visit] = []
        self.level, self.since = 0, 0
        """The present level, and how many visits there had been when it became so."""

    def draw(self, step: int, number: int) -> list[int]:
        """The places of the tasks of step `step`, counted from 1; of all tasks, where there are no more. Keys count the steps before."""
        weights = np.array(self.weights())
        keys = np.array([seed_for("curriculum", self.seed, step - 1, place) for place in range(len(weights))], dtype=np.uint64)
        numbers = uniforms(keys, np.zeros(len(keys), dtype=np.int64))
        with np.errstate(divide="ignore"):
            ranks = np.where(weights > 0, np.log(numbers) / weights, -np.inf)
        order = np.argsort(-ranks, kind="stable")[: min(number, int((weights > 0).sum()))]
        return [int(place) for place in order]

    def weights(self) -> list[float]:
        """Of every task, as things stand; 0 of one that stood there before."""
        firsts = set(self.places.values())
        return [weight * (place in firsts) for place, weight in enumerate(self._weights())]

    def _weights(self) -> list[float]:
        if self.how.method == "levels":
            return [1.0 if level == self.level else self.how.rest * (level < self.level) for level in self.levels]
        failing, own = self.failure_rates(), self._by_task()
        return [failing[category] * self._need(own.get(place, [])) for place, category in enumerate(self.categories)]

    def failure_rates(self) -> dict[str, float]:
        """Of every category, over its last groups, as if it had failed once and not failed once before."""
        found: dict[str, list[float]] = {category: [] for category in self.categories}
        for visit in self.visits:
            found[self.categories[visit.place]].append(1 - visit.mean)
        last = {category: failed[-self.how.memory :] for category, failed in found.items()}
        return {category: (sum(failed) + 1) / (len(failed) + 2) for category, failed in last.items()}

    def observe(self, groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> dict[str, float]:
        """Take in a step's groups, those without any score left out; returns what stands now, as metrics."""
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
        """Every visit, and the level."""
        import torch

        visits = torch.tensor([list(visit) for visit in self.visits], dtype=torch.float64).reshape(-1, 3)
        return {"visits": visits, "level": torch.tensor([self.level, self.since])}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take over what `state_dict` gave, and forget what was before."""
        self.visits = [Visit(int(place), mean, variance) for place, mean, variance in tensors["visits"].tolist()]
        self.level, self.since = tensors["level"].tolist()

    def _move(self) -> None:
        """Change the level where enough of it was seen."""
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
        """Return how much a task is to be drawn, by its visits."""
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
        """Return how many of the tasks that were visited are in each pool of difficulty, as shares."""
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
    """Return what a category may name: the metadata, of a family its entry's."""
    entry = task.metadata.get("entry")
    return {**task.metadata, **(entry["metadata"] if isinstance(entry, Mapping) else {})}
