"""Mean rewards: averages of the verifier's scores over the answers that it could score.

    mean_reward          of the greedy answers; 95 % interval by `reward_interval`
    sampled_mean_reward  of the sampled answers; interval over tasks, each with the mean of its samples

Answers without a score are excluded from means (None is never 0), but they are not correct in an accuracy. If a verifier gives 0 or 1 with
threshold 1 and scores every answer, mean reward and accuracy are equal: then tables omit the mean reward (`tells_more`); `result.json`
always has it.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.statistics import mean_interval, paired_mean_test, wilson_interval
from etude.tasks.reward import Reward, is_right

_SAME = 1e-9


def reward_row(rewards: Sequence[Reward], groups: Sequence[Sequence[Reward]] = (), prefix: str = "") -> dict[str, Any]:
    """Return the `mean_reward` with its interval, which is over the means of `groups` if given; None if nothing has a score.

    >>> reward_row([Reward(-5.0), Reward(15.0), Reward(None)])["mean_reward"]
    5.0
    """
    scores = [reward.score for reward in rewards if reward.score is not None]
    name = f"{prefix}mean_reward"
    if not scores:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    means = [mean for group in groups if (mean := mean_score(group)) is not None]
    low, high = reward_interval(means if groups else scores)
    return {name: fmean(scores), f"{name}_low": low, f"{name}_high": high}


def reward_interval(rewards: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean reward: Wilson's if all rewards are 0 or 1, else the bootstrap's.

    The bootstrap interval has no width if all rewards are equal.
    """
    if set(rewards) <= {0.0, 1.0}:
        return wilson_interval(round(sum(rewards)), len(rewards))
    return mean_interval(rewards)


def tells_more(row: Mapping[str, Any]) -> bool:
    """Tell whether the mean reward of an evaluation row says more than its accuracy.

    This is so if the rewards of the scored answers, greedy or sampled, do not sum to the number of correct answers.
    """
    greedy = _sums_differ(row.get("mean_reward"), row.get("accuracy"), row.get("n"), row.get("unscored"))
    sampled = row.get("sampled_mean_reward"), row.get("sampled_accuracy"), row.get("sampled_n"), row.get("sampled_unscored")
    return greedy or _sums_differ(*sampled)


def leads_with_reward(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Tell whether two rows of a suite are compared by their mean rewards.

    This is so if no greedy answer of either model is correct, or every one is, so that accuracy can't distinguish them, and if rewards say
    more.
    """
    accuracies = [row.get("accuracy") for row in (before, after)]
    return accuracies in ([0, 0], [1, 1]) and any(map(tells_more, (before, after))) and None not in map(_reward, (before, after))


def mean_score(rewards: Sequence[Reward]) -> float | None:
    """Return the mean of the existing scores; None without any."""
    known = [reward.score for reward in rewards if reward.score is not None]
    return fmean(known) if known else None


def compare_rewards(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the mean rewards of two models' answers with paired tests, over the items for which both have one.

    `reward_...` is of greedy answers (an item's `score`), `sampled_reward_...` of the means of sampled answers (its `sampled_reward`).
    """
    found: dict[str, Any] = {}
    for kind, name in (("score", "reward"), ("sampled_reward", "sampled_reward")):
        pairs = [(one.get(kind), other.get(kind)) for one, other in zip(before, after, strict=True)]
        differences = [second - first for first, second in pairs if first is not None and second is not None]
        if differences:
            found |= {f"{name}_{each}": value for each, value in vars(paired_mean_test(differences)).items()}
    return found


def is_item_right(item: Mapping[str, Any]) -> bool:
    """Tell whether an evaluation item or a saved attempt is correct; rows without a threshold are correct from a score of 1."""
    right = item.get("right")
    return bool(right) if right is not None else is_right(item.get("score"))


def _reward(row: Mapping[str, Any]) -> float | None:
    return row.get("mean_reward")


def _sums_differ(reward: float | None, accuracy: float | None, n: int | None, unscored: int | None) -> bool:
    if reward is None or accuracy is None or n is None:
        return False
    return abs(reward * (n - (unscored or 0)) - accuracy * n) > _SAME * n
