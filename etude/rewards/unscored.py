"""Check how many answers could not be scored, and stop when there are too many.

An odd answer may crash a verifier or time out: it is left out, which costs nothing. A verifier that fails on many answers is itself wrong,
and its failures are not random: training on the rest would be biased.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from etude.errors import UserError
from etude.tasks.feedback import quoted
from etude.tasks.reward import Reward
from etude.tasks.task import Task

A_FEW = 2
"""This many answers may always lack a score, so that one odd answer among eight stops nothing."""
_LONGEST_REASON = 300


class TooManyUnscored(UserError):
    """More answers than allowed have no score."""


def commonest_reason(rewards: Iterable[Reward]) -> str:
    """Return the most frequent message of the rewards without a score, the first of equals; "" if all have one.

    >>> commonest_reason([Reward(1.0), Reward(None, message="timed out"), Reward(None, message="timed out")])
    'timed out'
    """
    reasons = Counter(reward.message for reward in rewards if reward.score is None)
    return reasons.most_common(1)[0][0][:_LONGEST_REASON] if reasons else ""


def check_max_share(max_share: float) -> None:
    """Raise UserError for a `max_unscored_share` outside [0, 1]."""
    if not 0.0 <= max_share <= 1.0:
        raise UserError(f"max_unscored_share must be in [0, 1], got {max_share}: 1 never stops")


def check_scored(answers: Sequence[tuple[str, Task]], rewards: Sequence[Reward], max_share: float, where: str) -> None:
    """Raise `TooManyUnscored` if more than `max_share` of the answers, and more than `A_FEW`, or all of them, have no score.

    `where` names what was scored, such as `practice step 3`.
    """
    without = [pair for pair, reward in zip(answers, rewards, strict=True) if reward.score is None]
    n, total = len(without), len(rewards)
    if max_share == 1 or not without or (n < total and n <= max(A_FEW, max_share * total)):
        return
    reason = commonest_reason(rewards)
    text, task = next(pair for pair, reward in zip(answers, rewards, strict=True) if reward.score is None and _says(reward, reason))
    fix = "raise timeout_seconds, or put right what scores them" if reason.startswith("timed out") else "put right what scores them"
    raise TooManyUnscored(
        f"{where}: {n} of {total} answers could not be scored, and max_unscored_share is {max_share:g}; most often: {reason or 'no reason'}"
        f", as of the answer {quoted(text)} to {quoted(task.question)}: {fix} (a wrong answer scores 0), or raise max_unscored_share"
    )


def _says(reward: Reward, reason: str) -> bool:
    return reward.message[:_LONGEST_REASON] == reason
