"""The stages before practice: imitation of demonstrations (the warm start), then learning from preference pairs.

Each stage makes one update a step on prepared data. Its last checkpoint is kept, its optimizer is not.
"""

from collections.abc import Sequence
from functools import partial

from etude.learn.example import Example
from etude.learn.learner import Learner
from etude.learn.pairs import Pair
from etude.learn.preference import Preferring
from etude.rollouts.order import batch_at
from etude.training.learners import preference_learner, warm_start_learner
from etude.training.practice_run import PracticeRun


def warm_start(run: PracticeRun) -> None:
    """Imitate the demonstrations, if there is a warm start."""
    steps, ends_at = run.settings.warm_start.steps, -run.settings.preferences.steps
    if steps:
        make, prepare = partial(warm_start_learner, run.model, run.settings, run.place.dtype), partial(demonstrations_of, run)
        run.learn("warm_start", steps, kind="warm-", ends_at=ends_at, make=make, prepare=prepare, update=Learner.update)


def learn_from_comparisons(run: PracticeRun) -> None:
    """Learn from preference pairs, if there is such a stage."""
    how = run.settings.preferences
    if how.steps:

        def update(learner: Learner, pairs: Sequence[Pair]) -> dict[str, float]:
            return Preferring(learner, pairs, how).update(pairs)

        make, prepare = partial(preference_learner, run.model, run.settings, run.place.dtype), partial(comparisons_of, run)
        run.learn("preference", how.steps, kind="preference-", ends_at=0, make=make, prepare=prepare, update=update)


def demonstrations_of(run: PracticeRun, step: int) -> list[Example]:
    """Return the examples of warm-start step `step`, counted from 1."""
    return batch_at(step, run.data.demonstrations, run.settings.warm_start.examples_per_step, run.seed, "warm_start")


def comparisons_of(run: PracticeRun, step: int) -> list[Pair]:
    """Return the pairs of preference step `step`, counted from 1."""
    return batch_at(step, run.data.pairs, run.settings.preferences.pairs_per_step, run.seed, "preference")
