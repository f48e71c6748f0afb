"""The gate's decisions."""

from types import SimpleNamespace

import pytest

from etude.callbacks.gate import Gate, GateSettings, passes
from etude.errors import UserError

BEFORE = {"choice_accuracy": 0.5, "perplexity": 20.0}
LOST = {"choice_accuracy": 0.4, "perplexity": 20.0}


LOSES_LITTLE = {"max_accuracy_drop": 0.02, "max_perplexity_rise": 0.1}
IS_NEAR = {"max_divergence": 20.0}


@pytest.mark.parametrize(
    ("settings", "before", "now", "has_passed"),
    [
        *((LOSES_LITTLE, BEFORE, now, True) for now in (BEFORE, {"choice_accuracy": 0.49, "perplexity": 22.0})),
        (LOSES_LITTLE, BEFORE, {"choice_accuracy": 0.9, "perplexity": 5.0}, True),
        *((LOSES_LITTLE, BEFORE, BEFORE | lost, False) for lost in ({"choice_accuracy": 0.489}, {"perplexity": 22.1})),
        ({}, {"perplexity": 20.0}, {"perplexity": 20.3, "choice_accuracy": 0.0}, True),  # what was not measured before is not asked for
        ({}, {"choice_accuracy": 0.5}, {"choice_accuracy": 0.4}, False),
        *((IS_NEAR, BEFORE, BEFORE | {"forward_kl": moved}, True) for moved in (-0.1, 20.0)),
        *((IS_NEAR, before, before | {"forward_kl": 20.1}, False) for before in (BEFORE, {})),  # whatever it still knows
        ({}, BEFORE, BEFORE | {"forward_kl": 1e9}, True),  # none by default
    ],
)
def test_a_model_passes_that_lost_and_was_moved_no_more_than_it_may(settings, before, now, has_passed):
    assert passes(GateSettings(every=1, **settings), before, now) is has_passed


def started(**settings):
    """A gate that begins practice, and the run that it changes; the model fails every check."""
    gate, run = Gate(GateSettings(**{"every": 1} | settings)), SimpleNamespace()
    run.learner, run.replay_factor, run.held, run.history = SimpleNamespace(rate_factor=1.0), 1.0, 0, []
    run.probe, run.fix_reference, run.row_before, run.known_row = True, lambda: None, lambda measure: BEFORE, lambda: LOST
    gate.start(run)
    return gate, run


def fall(gate):
    """One step whose check fails, and the rollback."""
    decision, metrics = gate.decide(1, {}, [], is_last=False)
    assert decision.rollback and not decision.hold and metrics["gate/passed"] == 0
    gate.on_rollback()
    return decision.stop


def test_falls_lower_the_rate_or_raise_replay_and_end_practice_after_as_many_as_it_may():
    lowering, run = started(action="lower_lr", factor=4.0, max_rollbacks=2)
    seen = [(run.learner.rate_factor, run.replay_factor, lowering.is_over)]
    for _ in range(3):
        is_over = fall(lowering)
        seen.append((run.learner.rate_factor, run.replay_factor, is_over))
    assert seen == [(1.0, 1.0, False), (0.25, 1.0, False), (0.0625, 1.0, False), (0.015625, 1.0, True)]
    raising, run = started(action="raise_replay")
    fall(raising)
    assert (run.learner.rate_factor, run.replay_factor) == (1.0, 2.0)
    (stopping, _), (rolling, run) = (started(action=action) for action in ("stop", "rollback"))
    assert fall(stopping) and not fall(rolling) and run.learner.rate_factor == run.replay_factor == 1.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"every": 0}, r"gate\.every must be at least 1, got 0"),
        ({"max_rollbacks": -1}, r"gate\.max_rollbacks must be at least 0, got -1"),
        ({"max_accuracy_drop": 1.0}, r"gate\.max_accuracy_drop must be in \[0, 1\), a share of the accuracy before practice, got 1\.0"),
        ({"max_perplexity_rise": -0.1}, r"gate\.max_perplexity_rise must be 0 or more"),
        ({"max_divergence": 0.0}, r"gate\.max_divergence must be above 0, in nats an answer, or null, got 0\.0"),
        ({"divergence_n": 0}, r"gate\.divergence_n must be at least 1, got 0"),
        ({"factor": 1.0}, r"gate\.factor must be above 1, got 1\.0"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        GateSettings(**{"every": 1} | wrong)
