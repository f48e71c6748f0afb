"""Check the rewards of a step before they are stored or learned from.

Learning from advantages takes any finite number. Learning a probability, or reading a score as a share of successes, needs scores
in [0, 1]: the first score outside ends the run in one sentence.
"""

from collections.abc import Mapping

from etude.errors import UserError
from etude.rewards.unscored import check_scored
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.training.settings import PracticeSettings


def check_rewards(settings: PracticeSettings, batch: RolloutBatch, needs_unit: Mapping[str, str]) -> None:
    """Raise UserError if too many attempts at the given tasks have no score, or if one is outside [0, 1] and a callback needs that.
    `needs_unit` has the callbacks' names with the reason.
    """
    step, groups, rewards = batch.step, batch.groups[batch.given], batch.rewards[batch.given]
    pairs = [(attempt.text, group.task) for group in groups for attempt in group.attempts]
    flat = [reward for row in rewards for reward in row]
    for callback, why in needs_unit.items():
        outside = next((reward.score for reward in flat if reward.score is not None and not 0 <= reward.score <= 1), None)
        if outside is not None:
            raise UserError(
                f"practice step {step}: {callback} {why} and needs scores in [0, 1], and an attempt scored {outside:g}: bring what the "
                f"verifier gives to that range, or leave {callback} out"
            )
    failed = [not _abstains(settings, reward) for reward in flat]
    judged = [(pair, reward) for pair, reward, counts in zip(pairs, flat, failed, strict=True) if counts]
    if judged:
        asked, said = zip(*judged, strict=True)
        check_scored(asked, said, settings.max_unscored_share, f"practice step {step}")


def _abstains(settings: PracticeSettings, reward: Reward) -> bool:
    """Return whether a reward has no score by design: too few attempts agree, or the model's own answer does not decide."""
    if reward.score is not None:
        return False
    if settings.reward == "combined":
        missing = set(settings.reward_parts) - {*reward.parts, *settings.reward_optional}
        return missing <= {"majority_vote"}
    return settings.reward in ("majority_vote", "self_training")
