"""Mean rewards beside accuracies: what a verifier gave, over the answers that it could score.

    mean_reward          of the greedy answers; 95 % interval by `reward_interval`
    sampled_mean_reward  of the sampled answers; interval over tasks, each with the mean of its samples

Answers without a score are in no mean (None is never 0), but are not right in an accuracy. With a verifier of 0 and 1 whose threshold is 1,
and every answer scored, the mean reward and its interval are the accuracy and its interval: then tables leave the mean reward out
(`tells_more`), and `result.json` has it all the same.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.statistics import mean_interval, paired_mean_test, wilson_interval
from etude.rewards.verdict import Verdict, is_right

_SAME = 1e-9


def reward_row(verdicts: Sequence[Verdict], groups: Sequence[Sequence[Verdict]] = (), prefix: str = "") -> dict[str, Any]:
    """`mean_reward` with its interval, of `verdicts`; the interval is over the means of `groups`, where these are given. None where nothing
    has a score.

    >>> reward_row([Verdict(-5.0), Verdict(15.0), Verdict(None)])["mean_reward"]
    5.0
    """
    rewards = [verdict.score for verdict in verdicts if verdict.score is not None]
    name = f"{prefix}mean_reward"
    if not rewards:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    means = [mean for group in groups if (mean := mean_score(group)) is not None]
    low, high = reward_interval(means if groups else rewards)
    return {name: fmean(rewards), f"{name}_low": low, f"{name}_high": high}


def reward_interval(rewards: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean reward: Wilson's of rewards that are all 0 or 1, as an accuracy has it, else by the bootstrap, which has
    no width where all rewards are equal.
    """
    if set(rewards) <= {0.0, 1.0}:
        return wilson_interval(round(sum(rewards)), len(rewards))
    return mean_interval(rewards)


def tells_more(row: Mapping[str, Any]) -> bool:
    """Whether the mean reward of an evaluation row says more than its accuracy: the rewards of the scored answers, greedy or sampled, sum
    to another number than that of right answers.
    """
    greedy = _sums_differ(row.get("mean_reward"), row.get("accuracy"), row.get("n"), row.get("unscored"))
    sampled = row.get("sampled_mean_reward"), row.get("sampled_accuracy"), row.get("sampled_n"), row.get("sampled_unscored")
    return greedy or _sums_differ(*sampled)


def leads_with_reward(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two rows of a suite are compared by their mean rewards: no greedy answer of either model is right, or each one is, so that
    accuracy can't tell them apart, and rewards say more.
    """
    accuracies = [row.get("accuracy") for row in (before, after)]
    return accuracies in ([0, 0], [1, 1]) and any(map(tells_more, (before, after))) and None not in map(_reward, (before, after))


def mean_score(verdicts: Sequence[Verdict]) -> float | None:
    """Of those that have a score; None where none has."""
    known = [verdict.score for verdict in verdicts if verdict.score is not None]
    return fmean(known) if known else None


def compare_rewards(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paired tests of the mean rewards of two models' answers to the same items, over those that both have one of: `reward_...` of
    greedy answers (`score` of an item), `sampled_reward_...` of the means of sampled ones (its `sampled_reward`).
    """
    found: dict[str, Any] = {}
    for kind, name in (("score", "reward"), ("sampled_reward", "sampled_reward")):
        pairs = [(one.get(kind), other.get(kind)) for one, other in zip(before, after, strict=True)]
        differences = [second - first for first, second in pairs if first is not None and second is not None]
        if differences:
            found |= {f"{name}_{each}": value for each, value in vars(paired_mean_test(differences)).items()}
    return found


def is_item_right(item: Mapping[str, Any]) -> bool:
    """Whether an evaluation item, or an attempt as it is kept, is right; one that was written before thresholds were is from 1 on."""
    right = item.get("right")
    return bool(right) if right is not None else is_right(item.get("score"))


def _reward(row: Mapping[str, Any]) -> float | None:
    return row.get("mean_reward")


def _sums_differ(reward: float | None, accuracy: float | None, n: int | None, unscored: int | None) -> bool:
    if reward is None or accuracy is None or n is None:
        return False
    return abs(reward * (n - (unscored or 0)) - accuracy * n) > _SAME * n
