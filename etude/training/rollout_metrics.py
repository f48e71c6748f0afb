"""Metrics of a step's attempts and rewards, before any update; and the attempts as the run folder keeps them."""

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
    """Return how many attempts of a group are independent samples of the policy where groups may stop early; None: all."""
    halves = portions(rollout.num_samples, rollout.early_stop_groups)
    return len(halves[0]) if len(halves) > 1 else None


def of_the_policy(groups: Sequence[Group], first: int | None = None) -> list[list[Attempt]]:
    """Return the attempts that the policy made unhelped, by group, at most the `first` ones."""
    return [[attempt for attempt in group.attempts if attempt.is_sample][:first] for group in groups]


def sampled_entropy(attempts: Sequence[Attempt]) -> float:
    """Minus the mean log-prob of what was sampled, in nats a token."""
    return -sum(sum(attempt.logprobs) for attempt in attempts) / sum(attempt.num_own_tokens for attempt in attempts)


def observed(
    groups: Sequence[Group],
    rewards: Sequence[Sequence[Reward]],
    first: int | None = None,
    *,
    turn_discount: float = 1.0,
    with_parts: bool = False,
) -> dict[str, Any]:
    """Return what exploration and feedback showed, before any update.

    `entropy` is minus the mean log-prob of what was sampled, in nats a token, over all attempts: an unbiased estimate of the policy's.
    Attempts of a search are no independent samples: then all this is of what was found. Those that are no samples, since they saw the
    answer or were made of others, count in what was unscored or without signal alone. Where some groups stop after their `first` attempts,
    everything that estimates the policy is taken from so many of each group; what was unscored or without signal, and the number of
    `attempts`, is of all. Of revised attempts scores and ends are those of the last turn, tokens those of all turns; a group has signal
    where one of its turns has. `mean_reward` is of the attempts that have a score; `score` is the same number. `with_parts`, the mean of
    every named part of the rewards that have it is `part_NAME`. How much attempts agree is of the last turns' answers.
    """
    all_scores = [[reward.score for reward in row] for row in rewards]
    reason = commonest_reason(reward for row in rewards for reward in row)
    without_signal = sum(not any(turns_with_signal(map(scores_of, row), turn_discount)) for row in rewards)
    own = of_the_policy(groups, first)
    attempts = [attempt for row in own for attempt in row]
    rewards = [row[: len(mine)] for row, mine in zip(rewards, own, strict=True)]  # what was hinted stands behind
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
    """Return what the attempts at the given tasks and their rewards show, and what was counted on the way."""
    groups, rewards = batch.groups[batch.given], batch.rewards[batch.given]
    how: dict[str, Any] = {"turn_discount": settings.learn.turn_discount, "with_parts": with_parts}
    seen = observed(groups, rewards, first_half(settings.rollout), **how)
    if settings.reward == "self_training":  # whose rewards are no share of right attempts
        seen = {name: value for name, value in seen.items() if not name.startswith("pass_at_")} | {"score": None, "mean_reward": None}
    return seen | batch.metrics | {"sampled_tokens": batch.sampled_tokens}


def step_seconds(batch: RolloutBatch, learn_seconds: float) -> dict[str, float]:
    """Return the timings of a step."""
    rollout = batch.seconds["rollout_seconds"]
    speed = batch.sampled_tokens / rollout if rollout > 0 else 0.0  # clocks may stand
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
    """Return every attempt with its reward and mean advantage, as the run folder keeps it; `with_parts`, the parts of its reward too.

    A revised one has all its `turns`, each with what the model was told of it; of synthetic groups it is said what they are at.
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
    """Return the mean over an attempt's own tokens; None where it enters no policy gradient."""
    return None if batch.advantages is None or batch.masked[place][index] else fmean(batch.advantages[place][index])


def _turn_rows(batch: RolloutBatch, place: int, index: int) -> list[dict[str, Any]]:
    """Return what was written in each turn, and what the model was told of it."""
    attempt, reward = batch.groups[place].attempts[index], batch.rewards[place][index]
    weights: Weights | None = None if batch.advantages is None else batch.advantages[place][index]
    texts, words = (*attempt.before[::2], attempt.text), (*attempt.before[1::2], None)
    lengths = [end - start for start, end in attempt.turn_spans]
    advantages = [None if weights is None else weights[end - 1] for end in accumulate(lengths)]
    return [
        {"text": text, "score": score, "tokens": tokens, "advantage": earned, "told": told}
        for text, score, tokens, earned, told in zip(texts, scores_of(reward), lengths, advantages, words, strict=True)
    ]
