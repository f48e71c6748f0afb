from itertools import product

import pytest

from etude.rollouts.early_stop import is_decided, portions
from etude.tasks.reward import Reward


def test_halves_add_up_to_all_attempts():
    for n in range(4, 10):
        first, second = portions(n, "either")
        assert [*first, *second] == list(range(n)) and len(first) - len(second) in (0, 1)
    assert portions(8, "never") == [range(8)]


@pytest.mark.parametrize(
    ("scores", "right_at", "reasons"),
    [
        ([1.0, 1.0], 1.0, {"right", "either"}),
        ([0.0, 0.0], 1.0, {"wrong", "either"}),
        ([1.0, 0.0], 1.0, set()),
        ([0.5, 0.5], 1.0, {"wrong", "either"}),
        ([1.0, None], 1.0, set()),
        ([None, None], 1.0, set()),
        ([-5.0, -5.0], 15.0, {"wrong", "either"}),
        ([30.0, 30.0], 15.0, {"right", "either"}),
        ([30.0, 15.0], 15.0, set()),  # both right, and one is better: there is signal
    ],
)
def test_a_group_is_decided_where_all_score_the_same_and_are_right_or_wrong_as_asked(scores, right_at, reasons):
    rewards = [Reward(score, right_at=right_at) for score in scores]
    assert {when for when in ("never", "right", "wrong", "either") if is_decided(rewards, when)} == reasons


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("when", ["right", "wrong"])
def test_the_weight_that_a_task_loses_is_the_one_that_the_docstring_gives(p, when):
    """For one token that is right with probability p, by adding up all 256 groups of 8: the gradient in the logit, over p (1 - p)."""
    whole = kept = 0.0
    for scores in product((1.0, 0.0), repeat=8):
        probability = p ** sum(scores) * (1 - p) ** (8 - sum(scores))
        gradient = sum((score - sum(scores) / 8) * (score - p) for score in scores) / (p * (1 - p))
        whole += probability * gradient
        kept += 0.0 if is_decided([Reward(score) for score in scores[:4]], when) else probability * gradient
    rate = p if when == "right" else 1 - p
    lost = rate**3 * (4 + 3 * rate) / (2 * 7)
    assert whole == pytest.approx(7)
    assert kept == pytest.approx(7 * (1 - lost))
