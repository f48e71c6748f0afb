"""What may be wrong with the rewards of a step, found before they are kept or anything is learned from them.

Whatever learns from credit takes any finite number. What learns a probability, or takes a score for the share of what went well, takes
scores in [0, 1]: the first one outside ends the run in one sentence.
"""

from collections.abc import Sequence

from etude.errors import UserError
from etude.recipes.settings import PracticeSettings
from etude.rewards.unscored import check_scored
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Group


def check_rewards(settings: PracticeSettings, step: int, groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]]) -> None:
    """Raise UserError for a step, counted from 1, too many of whose attempts have no score, or one whose score is of a range that something
    which is on can't use. `groups` are those at the tasks that the step was given.
    """
    pairs = [(attempt.text, group.task) for group in groups for attempt in group.attempts]
    flat = [verdict for row in verdicts for verdict in row]
    for reader, turn_off in _in_unit_range(settings).items():
        outside = next((verdict.score for verdict in flat if verdict.score is not None and not 0 <= verdict.score <= 1), None)
        if outside is not None:
            raise UserError(
                f"practice step {step}: {reader} needs scores in [0, 1], and an attempt scored {outside:g}: bring what the verifier gives "
                f"to that range, or {turn_off}"
            )
    failed = [not _abstains(settings, verdict) for verdict in flat]
    judged = [(pair, verdict) for pair, verdict, counts in zip(pairs, flat, failed, strict=True) if counts]
    if judged:
        asked, said = zip(*judged, strict=True)
        check_scored(asked, said, settings.max_unscored_share, f"practice step {step}")


def _in_unit_range(settings: PracticeSettings) -> dict[str, str]:
    """What needs scores in [0, 1], with how to do without it."""
    curriculum = settings.explore.curriculum.method
    needs = {
        "step_model (whose value is a probability)": (settings.step_model.on, "set step_model.on to false"),
        "learn.implicit_reward (which learns a probability)": (
            settings.learn.implicit_reward.coefficient > 0,
            "set learn.implicit_reward.coefficient to 0",
        ),
        f"explore.curriculum {curriculum} (which takes 1 - score for a failure)": (
            curriculum != "none",
            "set explore.curriculum.method to none",
        ),
    }
    return {reader: turn_off for reader, (is_on, turn_off) in needs.items() if is_on}


def _abstains(settings: PracticeSettings, verdict: Verdict) -> bool:
    """Whether a verdict has no score by design: too few attempts agree, or the model's own answer says nothing of it."""
    if verdict.score is not None:
        return False
    if settings.feedback == "combined":
        missing = set(settings.feedback_parts) - {*verdict.parts, *settings.feedback_optional}
        return missing <= {"agreement"}
    return settings.feedback in ("agreement", "self_training")
