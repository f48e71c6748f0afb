"""Metrics of a step's attempts and rewards before any update, and the rows of attempts in the run folder."""

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean
from typing import Any

from etude.evaluation.diversity import diversity
from etude.learn.example import Weights
from etude.learn.turn_advantages import turns_with_signal
from etude.rewards.unscored import commonest_reason
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.collapse import agreement_metrics
from etude.rollouts.early_stop import portions
from etude.rollouts.settings import RolloutSettings
from etude.tasks.reward import Reward, scores_of
from etude.tasks.votes import vote
from etude.training.settings import PracticeSettings


def first_half(rollout: RolloutSettings) -> int | None:
    """Return how many attempts of a group are independent samples if groups may stop early; None: all."""
    halves = portions(rollout.num_samples, rollout.early_stop_groups)
    return len(halves[0]) if len(halves) > 1 else None


def of_the_policy(groups: Sequence[Group], first: int | None = None) -> list[list[Attempt]]:
    """Return the attempts that the policy sampled without help, by group, at most the `first` ones."""
    return [[attempt for attempt in group.attempts if attempt.is_sample][:first] for group in groups]


def sampled_entropy(attempts: Sequence[Attempt]) -> float:
    """Return minus the mean log-prob of sampled tokens, in nats a token."""
    return -sum(sum(attempt.logprobs) for attempt in attempts) / sum(attempt.num_own_tokens for attempt in attempts)


def observed(
    groups: Sequence[Group],
    rewards: Sequence[Sequence[Reward]],
    first: int | None = None,
    *,
    turn_discount: float = 1.0,
    with_parts: bool = False,
) -> dict[str, Any]:
    """Return the metrics of a step's attempts and rewards, before any update.

    `entropy` is minus the mean log-prob of sampled tokens, in nats a token, over all attempts: an unbiased estimate of the policy's
    entropy. Attempts of a search are not independent samples: there all metrics describe the attempts found. Attempts that saw the answer
    or were made of others are no samples: they count only in `unscored` and `groups_without_signal`. If some groups stop after their
    `first` attempts, estimates of the policy use only the first ones of each group; `unscored`, `groups_without_signal` and `attempts`
    count all. Scores and ends of revised attempts are those of the last turn, tokens those of all turns; a group has signal if one of its
    turns has. `mean_reward` is over the attempts with a score; `score` is the same number. `with_parts` adds `part_NAME`, the mean of every
    named part over the rewards that have it. Agreement is between the last turns' answers.
    """
    all_scores = [[reward.score for reward in row] for row in rewards]
    reason = commonest_reason(reward for row in rewards for reward in row)
    without_signal = sum(not any(turns_with_signal(map(scores_of, row), turn_discount)) for row in rewards)
    own = of_the_policy(groups, first)
    attempts = [attempt for row in own for attempt in row]
    rewards = [row[: len(mine)] for row, mine in zip(rewards, own, strict=True)]  # hinted attempts come last
    scores = [[reward.score for reward in row] for row in rewards]
    right = [[reward.is_right for reward in row] for row in rewards]
    votes = [[vote(attempt.text, group.task) for attempt in row] for group, row in zip(groups, own, strict=True)]
    own_tokens = sum(attempt.num_own_tokens for attempt in attempts)
    known = [score for row in scores for score in row if score is not None]
    parsable = [reward.parts["parsable"] for row in rewards for reward in row if "parsable" in reward.parts]
    return {
        "score": sum(known) / len(known) if known else None,
        "mean_reward": sum(known) / len(known) if known else None,
        "pass_at_group": sum(map(any, right)) / len(right),
        "parsable": sum(parsable) / len(parsable) if parsable else None,
        "truncated": sum(attempt.finish == "length" for attempt in attempts) / len(attempts),
        "unscored": sum(score is None for row in all_scores for score in row),
        **({"unscored_reason": reason} if reason else {}),
        "groups": len(groups),
        "groups_without_signal": without_signal,
        "completion_tokens": own_tokens / len(attempts),
        "entropy": sampled_entropy(attempts),
        **diversity([[attempt.text for attempt in row] for row in own], votes, right),
        **agreement_metrics(votes),
        **({} if first is None else {"attempts": sum(map(len, all_scores))}),
        **(_parts([reward for row in rewards for reward in row]) if with_parts else {}),
    }


def rollout_metrics(batch: RolloutBatch, settings: PracticeSettings, *, with_parts: bool) -> dict[str, Any]:
    """Return the metrics of the attempts at the given tasks, and the rollout's counts."""
    groups, rewards = batch.groups[batch.given], batch.rewards[batch.given]
    how: dict[str, Any] = {"turn_discount": settings.learn.turn_discount, "with_parts": with_parts}
    seen = observed(groups, rewards, first_half(settings.rollout), **how)
    if settings.reward == "self_training":  # its rewards are no share of right attempts
        seen = {name: value for name, value in seen.items() if not name.startswith("pass_at_")} | {"score": None, "mean_reward": None}
    return seen | batch.metrics | {"sampled_tokens": batch.sampled_tokens}


def step_seconds(batch: RolloutBatch, learn_seconds: float) -> dict[str, float]:
    """Return the timings of a step."""
    rollout = batch.seconds["rollout_seconds"]
    speed = batch.sampled_tokens / rollout if rollout > 0 else 0.0  # clocks may not advance
    return {
        **batch.seconds,
        "tokens_per_second": speed,
        **({"from_ledger": 1} if batch.is_from_ledger else {}),
        "learn_seconds": learn_seconds,
    }


def _parts(rewards: Sequence[Reward]) -> dict[str, float]:
    names = sorted({name for reward in rewards for name in reward.parts} - {"parsable"})
    return {f"part_{name}": fmean(reward.parts[name] for reward in rewards if name in reward.parts) for name in names}


def attempt_rows(batch: RolloutBatch, *, with_parts: bool = False) -> list[dict[str, Any]]:
    """Return a row of the run folder for every attempt, with its reward and mean advantage; `with_parts` adds the parts of the reward.

    A revised attempt has all its `turns` with their feedback; rows of synthetic groups have the task's origin as `made`.
    """
    return [
        {
            "step": batch.step,
            "task": group.task.key,
            "question": group.task.question,
            "answer": group.task.answer,
            "index": index,
            "text": attempt.text,
            "score": reward.score,
            "right": None if reward.score is None else reward.is_right,
            "parsable": reward.parts.get("parsable"),
            "message": reward.message,
            "advantage": _mean_advantage(batch, place, index),
            "finish": attempt.finish,
            "tokens": attempt.num_own_tokens,
            "mean_logprob": sum(attempt.logprobs) / attempt.num_own_tokens,
            "key": attempt.key,
            **({"view": attempt.view} if attempt.view != "full" else {}),
            **({"made": group.task.origin} if place >= batch.given.stop else {}),
            **({"parts": dict(reward.parts)} if with_parts else {}),
            **({"turns": _turn_rows(batch, place, index)} if attempt.turns > 1 else {}),
        }
        for place, (group, row) in enumerate(zip(batch.groups, batch.rewards, strict=True))
        for index, (attempt, reward) in enumerate(zip(group.attempts, row, strict=True))
    ]


def _mean_advantage(batch: RolloutBatch, place: int, index: int) -> float | None:
    """Return the mean advantage of an attempt's own tokens; None if it enters no policy gradient."""
    return None if batch.advantages is None or batch.masked[place][index] else fmean(batch.advantages[place][index])


def _turn_rows(batch: RolloutBatch, place: int, index: int) -> list[dict[str, Any]]:
    """Return the text, score, advantage and feedback of each turn."""
    attempt, reward = batch.groups[place].attempts[index], batch.rewards[place][index]
    weights: Weights | None = None if batch.advantages is None else batch.advantages[place][index]
    texts, words = (*attempt.before[::2], attempt.text), (*attempt.before[1::2], None)
    lengths = [end - start for start, end in attempt.turn_spans]
    advantages = [None if weights is None else weights[end - 1] for end in accumulate(lengths)]
    return [
        {"text": text, "score": score, "tokens": tokens, "advantage": earned, "told": told}
        for text, score, tokens, earned, told in zip(texts, scores_of(reward), lengths, advantages, words, strict=True)
    ]
