"""How a practice run keeps what its model knew: what it replays, what it holds, and the gate, as far as its settings want them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from etude.learn.example import Example
from etude.learn.gate import Gate
from etude.learn.learner import Learner
from etude.learn.replay import Replay
from etude.recipes.divergence import moved_from_start, practised_answers
from etude.recipes.gating import Gating
from etude.recipes.holding import Holding
from etude.recipes.settings import PracticeSettings
from etude.training.checkpoints import load_checkpoint

if TYPE_CHECKING:
    from etude.recipes.practice import Practice

DECIDES = ("g", "w")
"""Letters of what decides to fall back, and so does not fall back itself."""


def replay_for(settings: PracticeSettings, pieces: Sequence[Example], learner: Learner) -> Replay | None:
    """What is replayed beside practice; None without a ratio."""
    how = settings.retention.replay
    return Replay(pieces, how, settings.seed, learner.with_reference) if how.ratio else None


def holding_of(run: "Practice", learner: Learner) -> Holding:
    """Holds the run's model as step checkpoints, and falls back to them."""

    def write(step: int) -> None:
        run.save_checkpoint(f"step-{step:05d}", learner, {"order": step, "step": step})

    def read(step: int) -> None:
        learns = {letter: part for letter, part in run.beside.items() if letter not in DECIDES}
        load_checkpoint(run.folder.checkpoint(f"step-{step:05d}"), run.model, learner, learns)
        run.engine.sync_weights(run.engine.policy_version)

    return Holding(write, read)


def gating_for(run: "Practice", learner: Learner) -> Gating | None:
    """The gate of a run, which compares with the model as it was before practice; None where it is off."""
    settings, probe, holding = run.settings, run.probe, run.holding
    if not settings.retention.gate.every or not holding:
        return None
    if settings.learn.preference.refresh_every and learner.reference is not None:
        learner.refresh_reference()  # the same numbers; from now on checkpoints hold them, so that falling back finds them
    before = run.folder.read_json(f"evaluation/{begins_as(settings)}.json")["retention"]["row"] if probe else {}
    answers = practised_answers(run)

    def measure() -> dict[str, Any]:
        return (run.known_row(probe) if probe else {}) | (moved_from_start(run, answers) if answers else {})

    return Gating(Gate(settings.retention.gate, before), holding, learner, run.replay, measure)


def begins_as(settings: PracticeSettings) -> str:
    """What the model that practice begins with is called among the run's measurements."""
    return "preference" if settings.preferences.steps else "warm_start" if settings.warm_start.steps else "base"


def spared(run: "Practice") -> str | None:
    """The checkpoint that stays because it is held."""
    return f"step-{run.holding.step:05d}" if run.holding and run.holding.step is not None else None
