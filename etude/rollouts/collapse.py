"""Detect the collapse of a model that learns from its own agreement: ever more certain of ever fewer answers.

A policy rewarded for agreement of its attempts scores best with one answer to everything (observed in SRT, arXiv 2505.21444 sec. 5). Two
signs are checked in the last `window` steps, against the first `window` steps of the run:

constant  `constant_share`, the share of a step's tasks with the commonest majority answer, is at least `constant`, and at least half of
          the way from its start to 1: tasks may have few possible answers, or come one a step
narrow    `vote_share`, the share of the attempts that give their task's majority answer, rose by `rise` or more, while entropy, the length
          of attempts or the share of different majority answers fell to `fall` of its start, or below

A model that learns correctly becomes more certain as well, but its answers to different tasks stay different, and its entropy does not
vanish short of perfection. Growing certainty of answers that are wrong and different is not detected: without gold answers it looks like
learning (`LOG.md`; the callback `vote_calibration` uses tasks with gold answers). All metrics are means of steps.

Identity: no action changes anything before a collapse.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from etude.errors import UserError, at_least
from etude.tasks.votes import Tally

FALLING = ("entropy", "completion_tokens", "distinct_majorities")
"""Metrics whose fall is a sign if agreement rises."""
_WORDS = {
    "constant_share": "one answer to {now:.0%} of the tasks ({before:.0%} at first)",
    "vote_share": "{now:.0%} of a task's attempts agree ({before:.0%})",
    "entropy": "entropy {now:.2g} nats a token ({before:.2g})",
    "completion_tokens": "{now:.1f} tokens an attempt ({before:.1f})",
    "distinct_majorities": "{now:.0%} of the majority answers differ ({before:.0%})",
}


@dataclass(frozen=True)
class CollapseSettings:
    """Collapse detection, and what follows a collapse."""

    action: Literal["warn", "stop", "rollback"] = "warn"
    """`warn` = report and continue; `stop` = end practice with the current model; `rollback` = end it with the last model whose signs were
    less than half as strong."""
    window: int = 5
    """Steps to average; the last ones are compared with the first ones."""
    constant: float = 0.5
    """Least share of the tasks with the same majority answer that is a sign, in (0, 1]."""
    rise: float = 0.2
    """Least rise of the share of attempts that agree, in (0, 1]; a sign only together with `fall`."""
    fall: float = 0.25
    """Entropy, length or the share of different answers must fall to this share of its initial value, in (0, 1]."""

    def __post_init__(self) -> None:
        at_least("collapse.window", self.window, 1)
        for name in ("constant", "rise", "fall"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise UserError(f"collapse.{name} must be above 0 and at most 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Collapse:
    """A detected collapse."""

    step: int
    """The step at the end of which it was detected."""
    signs: tuple[str, ...]
    """`constant`, `narrow` or both."""
    before: Mapping[str, float]
    now: Mapping[str, float]
    """The metrics of the detector: means over the first and the last steps."""

    @property
    def words(self) -> str:
        """One line for the console."""
        said = [_WORDS[name].format(now=value, before=self.before[name]) for name, value in self.now.items()]
        return f"collapse at step {self.step} ({' and '.join(self.signs)}): {', '.join(said)}"


def agreement_metrics(votes: Sequence[Sequence[str | None]]) -> dict[str, float]:
    """Return how many of a task's attempts agree, and how alike the tasks' majority answers are, as shares of the tasks with any answer. If
    there is none, only `vote_share` is returned.
    """
    tallies = [Tally.of(own) for own in votes]
    winners = Counter(tally.winner for tally in tallies if tally.winner is not None)
    n = sum(winners.values())
    shares = {"vote_share": fmean(tally.share(tally.winner) for tally in tallies)}
    return shares | ({"constant_share": max(winners.values()) / n, "distinct_majorities": len(winners) / n} if n else {})


class CollapseWatch:
    """Finds the first collapse in growing metrics; every window is checked once."""

    def __init__(self, how: CollapseSettings) -> None:
        self.how = how
        self._begin()

    def _begin(self) -> None:
        self._end = 2 * self.how.window
        """Where the next window ends."""
        self._found: Collapse | None = None

    def first(self, rows: Sequence[Mapping[str, Any]]) -> Collapse | None:
        """Return the first collapse in the metrics of practice steps, one row a step, or None. `rows` are those of the last call and
        perhaps more, or fewer, if a resumed run cut its log. The last row may lack metrics that this does not read.
        """
        if len(rows) < self._end - 1:
            self._begin()
        while self._found is None and self._end <= len(rows):
            self._found = _seen(rows[: self.how.window], rows[self._end - self.how.window : self._end], self.how)
            self._end += 1
        return self._found


def collapse_in(rows: Sequence[Mapping[str, Any]], how: CollapseSettings) -> Collapse | None:
    """Return the first collapse in complete rows."""
    return CollapseWatch(how).first(rows)


def is_sound(rows: Sequence[Mapping[str, Any]], how: CollapseSettings) -> bool:
    """Return whether the last steps show no sign even at half strength: half of the way to one answer for all, half of the rise, the square
    root of the fall. A model that gives no answers is not sound either.
    """
    first, last = rows[: how.window], rows[-how.window :]
    return _means(last).keys() == _WORDS.keys() and _seen(first, last, how, strength=0.5) is None


def _seen(
    first: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]], how: CollapseSettings, strength: float = 1.0
) -> Collapse | None:
    before, now = (_means(part) for part in (first, last))
    if not before.keys() == now.keys() == _WORDS.keys():
        return None
    constant = before["constant_share"]
    is_constant = constant < 1 and now["constant_share"] >= constant + strength * (max(how.constant, (1 + constant) / 2) - constant)
    is_surer = now["vote_share"] >= before["vote_share"] + strength * how.rise
    is_narrow = is_surer and any(now[name] <= how.fall**strength * before[name] for name in FALLING)
    signs = tuple(name for name, is_seen in (("constant", is_constant), ("narrow", is_narrow)) if is_seen)
    return Collapse(last[-1]["step"], signs, before, now) if signs else None


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    known = {name: [row[name] for row in rows if row.get(name) is not None] for name in _WORDS}  # without steps where nobody answered
    return {name: fmean(values) for name, values in known.items() if values}
