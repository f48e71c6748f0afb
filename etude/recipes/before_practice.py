"""What a model learns before practice: to imitate demonstrations (the warm start), then from answers that somebody compared.

Each is a stage of a run: an update by what is prepared for every step. Its last checkpoint stays, its optimizer does not outlive it.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from etude.learn.example import Example
from etude.learn.learner import Learner
from etude.learn.pairs import Pair
from etude.learn.preference import Preferring
from etude.rollouts.order import batch_at
from etude.training.checkpoints import load_checkpoint
from etude.training.stage import Stage

if TYPE_CHECKING:
    from etude.recipes.practice import Practice


def imitate_demonstrations(run: "Practice") -> None:
    """The warm start, where there is one."""
    before, steps = run.settings.preferences.steps, run.settings.warm_start.steps
    if steps:
        make, prepare = run.warm_start_learner, partial(demonstrations_of, run)
        _learn(run, "warm_start", "warm-", steps, ends_at=-before, make=make, prepare=prepare, update=Learner.update)


def learn_from_comparisons(run: "Practice") -> None:
    """The stage of preference, where there is one."""
    how = run.settings.preferences
    if how.steps:

        def update(learner: Learner, pairs: Sequence[Pair]) -> dict[str, float]:
            return Preferring(learner, pairs, how).update(pairs)

        make, prepare = run.preference_learner, partial(comparisons_of, run)
        _learn(run, "preference", "preference-", how.steps, ends_at=0, make=make, prepare=prepare, update=update)


def demonstrations_of(run: "Practice", step: int) -> list[Example]:
    """What warm-start step `step`, counted from 1, imitates."""
    return batch_at(step, run.demonstrations, run.settings.warm_start.examples_per_step, run.settings.seed, "warm_start")


def comparisons_of(run: "Practice", step: int) -> list[Pair]:
    """The pairs of preference step `step`, counted from 1."""
    return batch_at(step, run.comparisons, run.settings.preferences.pairs_per_step, run.settings.seed, "preference")


def _learn(
    run: "Practice",
    phase: str,
    kind: str,
    steps: int,
    *,
    ends_at: int,
    make: Callable[[], Learner],
    prepare: Callable[[int], Any],
    update: Callable[[Learner, Any], dict[str, float]],
) -> None:
    """A stage whose last checkpoint is at `ends_at` in their order."""
    if run.folder.checkpoint(phase).exists():
        load_checkpoint(run.folder.checkpoint(phase), run.model)
    else:
        learner = make()

        def learn(step: int, prepared: Any) -> None:
            start = time.perf_counter()
            run.engine.offload_weights()
            metrics = update(learner, prepared)
            run.log(phase, step, metrics, {"learn_seconds": time.perf_counter() - start})

        every = run.settings.checkpoint_every
        stage = Stage(
            phase=phase, kind=kind, order=ends_at - steps, total=steps, every=every, saves_last=False, prepare=prepare, update=learn
        )
        run.train(stage, learner)
        run.save_checkpoint(phase, None, {"order": ends_at})
    run.engine.sync_weights(0)
    for unfinished in run.folder.checkpoints(kind):
        shutil.rmtree(unfinished)
