"""Combined reward: the weighted mean of several rewards.

    score = Σ w_i s_i / Σ w_i        over the parts i, with weights w_i > 0 and any finite scores s_i

Weights ignore the scales of the parts: a judge's scores lie in [0, 1], a verifier's may lie anywhere.

Every part's score is kept in `parts` under its name, with the part's own entries. If a part has no score (None: a verifier that crashed, a
judge that did not answer), the whole has none, since a mean of the others would be on another scale than that of other attempts. An
optional part is left out of both sums instead. Step values come from the one part that has them; if several have, there are none. Identity:
one part, whatever its weight, equals that reward alone. An answer is right only if every part with a score says so: a high score of one
part does not make up for another.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from math import inf, nextafter

from etude.errors import UserError
from etude.tasks.reward import RIGHT_AT, Reward
from etude.tasks.task import Task

Pairs = Sequence[tuple[str, Task]]


class CombinedReward:
    """Scores attempts by the weighted mean of named parts."""

    def __init__(
        self,
        parts: Mapping[str, Callable[[Pairs], Sequence[Reward]]],
        weights: Mapping[str, float] | None = None,
        optional: Collection[str] = (),
    ) -> None:
        """Set the parts and their weights (1 unless given). Raises UserError for a weight that is not above 0."""
        self.parts = dict(parts)
        self.weights = dict.fromkeys(parts, 1.0) if weights is None else dict(weights)
        self.optional = frozenset(optional)
        check_weights(self.weights, self.optional)

    def judge(self, pairs: Pairs) -> list[Reward]:
        """Return one reward for each (text, task), in order; every part gets all of them in one call.

        >>> half, full = (lambda pairs: [Reward(0.5)]), (lambda pairs: [Reward(1.0)])
        >>> CombinedReward({"verifier": full, "judge": half}, {"verifier": 3, "judge": 1}).judge([("5", Task("2 + 3?"))])[0].score
        0.875
        """
        found = {name: list(judge(pairs)) for name, judge in self.parts.items()}
        return [self._whole({name: row[place] for name, row in found.items()}) for place in range(len(pairs))]

    def _whole(self, rewards: Mapping[str, Reward]) -> Reward:
        known = {name: reward.score for name, reward in rewards.items() if reward.score is not None}
        inner = {part: value for reward in rewards.values() for part, value in reward.parts.items()}
        if len(rewards) == 1:
            (alone,) = rewards.values()
            return replace(alone, parts=inner | known)
        score = None if any(name not in known and name not in self.optional for name in rewards) else self._mean(known)
        message = "; ".join(f"{name}: {reward.message}" for name, reward in rewards.items() if reward.message)
        words = " ".join(reward.words for reward in rewards.values() if reward.words)
        valued = [reward.step_values for reward in rewards.values() if reward.step_values]
        right_at = RIGHT_AT if score is None else self._right_at(score, {name: rewards[name] for name in known})
        step_values = valued[0] if len(valued) == 1 else ()
        return Reward(score, inner | known, step_values=step_values, message=message, words=words, right_at=right_at)

    def _mean(self, scores: Mapping[str, float]) -> float | None:
        total = sum(self.weights[name] for name in scores)
        return sum(self.weights[name] * score for name, score in scores.items()) / total if scores else None

    def _right_at(self, score: float, known: Mapping[str, Reward]) -> float:
        """Return the mean of the parts' thresholds, raised above the score if a part says that the answer is not right."""
        mean = self._mean({name: reward.right_at for name, reward in known.items()})
        assert mean is not None
        is_right = all(reward.is_right for reward in known.values())
        return min(mean, score) if is_right else max(mean, nextafter(score, inf))


def check_weights(weights: Mapping[str, float], optional: Collection[str] = ()) -> None:
    """Raise UserError for a weight that is not above 0, and for an optional part without a weight."""
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise UserError(f"reward_weights.{name} must be above 0, got {weight}: leave a part out instead of giving it no weight")
    for name in optional:
        if name not in weights:
            raise UserError(f"reward_optional names {name!r}, which is no part of reward_weights: {', '.join(weights) or 'it is empty'}")
