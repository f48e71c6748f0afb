"""The gate's decisions."""

import pytest

from etude.callbacks.gate import GateSettings
from etude.errors import UserError

BEFORE = {"choice_accuracy": 0.5, "perplexity": 20.0}


@pytest.mark.parametrize(
    ("accuracy", "perplexity", "passes"),
    [(0.5, 20.0, True), (0.49, 22.0, True), (0.489, 20.0, False), (0.5, 22.1, False), (0.9, 5.0, True)],
)
def test_a_model_passes_that_lost_no_more_than_it_may(accuracy, perplexity, passes):
    gate = Gate(GateSettings(every=1, max_loss=0.02, max_perplexity_rise=0.1), BEFORE)
    assert gate.passes({"choice_accuracy": accuracy, "perplexity": perplexity}) is passes


def test_what_was_not_measured_before_is_not_asked_for():
    assert Gate(GateSettings(every=1), {"perplexity": 20.0}).passes({"perplexity": 20.3, "choice_accuracy": 0.0})
    assert not Gate(GateSettings(every=1), {"choice_accuracy": 0.5}).passes({"choice_accuracy": 0.4})


def test_a_model_that_was_moved_too_far_fails_whatever_it_still_knows():
    gate = Gate(GateSettings(every=1, max_divergence=20.0), BEFORE)
    passed = [gate.passes(BEFORE | {"forward_kl": moved}) for moved in (-0.1, 20.0, 20.1)]
    assert passed == [True, True, False]
    assert Gate(GateSettings(every=1), BEFORE).passes(BEFORE | {"forward_kl": 1e9})  # none by default
    assert not Gate(GateSettings(every=1, max_divergence=20.0), {}).passes({"forward_kl": 20.1})  # without anything else to go by


def test_falls_lower_the_rate_or_raise_replay_and_end_practice_after_as_many_as_it_may():
    lowering = Gate(GateSettings(every=1, action="lower_rate", factor=4.0, max_falls=2), BEFORE)
    seen = []
    for _ in range(4):
        seen.append((lowering.rate_factor, lowering.replay_factor, lowering.is_over))
        lowering.fall()
    assert seen == [(1.0, 1.0, False), (0.25, 1.0, False), (0.0625, 1.0, False), (0.015625, 1.0, True)]
    raising = Gate(GateSettings(every=1, action="raise_replay"), BEFORE)
    raising.fall()
    assert (raising.rate_factor, raising.replay_factor) == (1.0, 2.0)
    stopping, rolling = (Gate(GateSettings(every=1, action=action), BEFORE) for action in ("stop", "roll_back"))
    stopping.fall()
    rolling.fall()
    assert stopping.is_over and not rolling.is_over and rolling.rate_factor == rolling.replay_factor == 1.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"every": -1}, r"retention\.gate\.every must be at least 0, got -1"),
        ({"max_loss": 1.0}, r"retention\.gate\.max_loss must be in \[0, 1\), a share of the accuracy before practice, got 1\.0"),
        ({"max_perplexity_rise": -0.1}, r"retention\.gate\.max_perplexity_rise must be 0 or more"),
        ({"max_divergence": 0.0}, r"retention\.gate\.max_divergence must be above 0, in nats an answer, or none, got 0\.0"),
        ({"divergence_n": 0}, r"retention\.gate\.divergence_n must be at least 1, got 0"),
        ({"factor": 1.0}, r"retention\.gate\.factor must be above 1, got 1\.0"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(wrong, said):
    with pytest.raises(UserError, match=said):
        GateSettings(**wrong)
