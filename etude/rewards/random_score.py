"""Random reward: the control that shows what practice gains without a meaningful reward.

A learner that improves as much with these scores as with a verifier's has not learned from the verifier (arXiv 2506.10947 found such
gains).
"""

from collections.abc import Sequence

import numpy as np

from etude.errors import UserError
from etude.randomness import seed_for, uniforms
from etude.tasks.reward import Reward
from etude.tasks.task import Task


class RandomReward:
    """Scores 1.0 with probability `rate`, else 0.0, whatever the text is; the same pairs in the same order get the same scores."""

    def __init__(self, seed: int, rate: float) -> None:
        """Set `rate` in [0, 1], best the share that the real verifier accepts. Raises UserError for another rate."""
        if not 0.0 <= rate <= 1.0:
            raise UserError(f"rate must be in [0, 1], got {rate}")
        self.seed = seed
        self.rate = rate

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        """Return one reward for each (text, task), in order, sampled by (seed, task, text, index).

        >>> RandomReward(seed=0, rate=1.0).judge([("5", Task("What is 2 + 2?", "4"))])[0].score
        1.0
        """
        names = [(self.seed, task.key, ascii(text), index) for index, (text, task) in enumerate(pairs)]
        keys = np.array([seed_for("random_score", *name) for name in names], dtype=np.uint64)
        return [Reward(float(draw < self.rate)) for draw in uniforms(keys, np.zeros(len(keys), dtype=np.int64))]
