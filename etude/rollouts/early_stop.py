"""Early stopping of groups whose outcome seems decided: attempts are sampled in two halves, the second only if the first leaves doubt.

Effects for a group of G attempts in halves of k = G / 2, each right with probability p (scores 0 and 1, advantage R - mean; with `right` as
the reason to stop; for `wrong` read 1 - p as p):

- The group is stopped with probability p^k. Of these groups, the share 1 - p^k would have had a wrong attempt in the second half, and
  signal.
- The expected gradient of one task keeps its direction and loses weight: Σ (R - mean) ∇log π is (G - 1) ∇p on average over all groups,
  and 1 - s(p) of that over those that are not stopped, s(p) = p^(k-1) (k + (k-1) p) / (2 (G - 1)), which rises to 1/2 for p = 1. So
  nearly learned (nearly hopeless) tasks count less than they do without. With G = 8, s is 0.05 at p = 0.5 and 0.35 at 0.9.
- Groups have different sizes. Means over a step's attempts give stopped groups half the weight; advantage `grpo` divides by the
  deviation of the attempts that there are, and updates by the number of attempts sampled.
- Metrics that describe the policy (score, pass at group, entropy, ...) therefore use only the first halves, which are independent samples:
  with fewer of them, so less certain, and pass at group is that of k attempts.

A group is decided if its attempts so far all score the same; whether they are right selects the reason. So this works for rewards of any
range, but with many different rewards few groups are ever decided.

Identity: `never`. The sampled attempts are among those that `never` samples.
"""

from collections.abc import Sequence
from typing import Literal

from etude.tasks.reward import Reward

StopWhen = Literal["never", "right", "wrong", "either"]


def portions(num_samples: int, when: StopWhen) -> list[range]:
    """Return which attempts are sampled together, by number.

    >>> portions(5, "never"), portions(5, "right")
    ([range(0, 5)], [range(0, 3), range(3, 5)])
    """
    half = (num_samples + 1) // 2
    return [range(num_samples)] if when == "never" else [range(half), range(half, num_samples)]


def is_decided(rewards: Sequence[Reward], when: StopWhen) -> bool:
    """Return whether the attempts so far score the same and are right, or wrong, as `when` asks. An attempt without a score leaves doubt,
    and so do different scores, which are signal.
    """
    scores = {reward.score for reward in rewards}
    if len(scores) != 1 or None in scores:
        return False
    return when in (("right", "either") if rewards[0].is_right else ("wrong", "either"))
