"""What a practice run changes from step to step: the temperature of its attempts, and what entropy is worth in the loss."""

from collections.abc import Sequence

from etude.learn.entropy import EntropyBonus
from etude.learn.learner import Learner
from etude.recipes.settings import PracticeSettings
from etude.recipes.step import first_half, of_the_policy, sampled_entropy
from etude.rollouts.attempts import Group


def steer(learner: Learner, bonus: EntropyBonus | None, settings: PracticeSettings, step: int, groups: Sequence[Group]) -> dict[str, float]:
    """Prepare the policy's learner for the attempts of step `step`, counted from 1; what was changed, as metrics."""
    told: dict[str, float] = {}
    if settings.explore.temperature_end is not None:
        told["temperature"] = learner.temperature = settings.explore.sampling_at(step, settings.steps).temperature
    if bonus:
        attempts = [attempt for row in of_the_policy(groups, first_half(settings.explore)) for attempt in row]
        told["entropy_bonus"] = learner.entropy_bonus = bonus.after(sampled_entropy(attempts))
    return told
