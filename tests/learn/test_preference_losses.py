"""Preference losses: worked out by hand. `test_preference.py` has updates by them, against TRL's trainers."""

from math import exp, log

import pytest
import torch
from torch import tensor

from etude.errors import UserError
from etude.learn.losses.preference import Likelihoods, PreferenceLoss, preference_loss

CHOSEN, REJECTED = [-5.0, -9.0, -30.0], [-8.0, -4.0, -31.0]
REFERENCE_CHOSEN, REFERENCE_REJECTED = [-6.0, -9.0, -33.0], [-7.0, -6.0, -30.0]
CHOSEN_TOKENS, REJECTED_TOKENS = [5, 9, 12], [4, 8, 10]


def likelihoods(**changes):
    values = {
        "chosen_P": CHOSEN,
        "rejected_P": REJECTED,
        "reference_chosen_P": REFERENCE_CHOSEN,
        "reference_rejected_P": REFERENCE_REJECTED,
        "chosen_tokens_P": CHOSEN_TOKENS,
        "rejected_tokens_P": REJECTED_TOKENS,
    }
    return Likelihoods(**{name: tensor(value, dtype=torch.float64) for name, value in values.items()}, **changes)


def sigmoid(x):
    return 1 / (1 + exp(-x))


# d+ = 1, 0, 3 and d- = -1, 2, -1, so their differences are 2, -2, 4
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"loss": "dpo", "beta": 0.5}, [-log(sigmoid(1)), -log(sigmoid(-1)), -log(sigmoid(2))]),
        ({"loss": "dpo", "beta": 0.5, "label_smoothing": 0.25}, [-0.75 * log(sigmoid(s)) - 0.25 * log(sigmoid(-s)) for s in (1, -1, 2)]),
        ({"loss": "ipo", "beta": 0.5}, [(1 / 5 + 1 / 4 - 1) ** 2, (0 - 2 / 8 - 1) ** 2, (3 / 12 + 1 / 10 - 1) ** 2]),
        ({"loss": "simpo", "beta": 2.0, "simpo_gamma": 0.5}, [-log(sigmoid(2 * m - 0.5)) for m in (-1 + 2, -1 + 0.5, -2.5 + 3.1)]),
        ({"loss": "kto", "beta": 0.5}, [(2 - sigmoid(0.5 * c) - sigmoid(-0.5 * r)) / 2 for c, r in ((1, -1), (0, 2), (3, -1))]),
        ({"loss": "dpo", "beta": 0.5, "rpo_alpha": 0.1}, [-log(sigmoid(1)) + 0.1, -log(sigmoid(-1)) + 0.1, -log(sigmoid(2)) + 0.25]),
    ],
)
def test_losses_are_what_was_worked_out_by_hand(how, expected):
    assert preference_loss(likelihoods(), PreferenceLoss(**how)).tolist() == pytest.approx(expected, rel=1e-12)


def test_ktos_middle_is_the_mean_of_mismatched_completions_and_never_below_0():
    how = PreferenceLoss("kto", beta=0.5)
    assert preference_loss(likelihoods(mismatched=-3.0), how).tolist() == preference_loss(likelihoods(), how).tolist()
    first = preference_loss(likelihoods(mismatched=2.0), how)[0].item()
    assert first == pytest.approx((1 - sigmoid(0.5 * (1 - 2)) + 1 - sigmoid(0.5 * (2 + 1))) / 2)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"loss": "dpp"}, "dpo"),
        ({"beta": 0.0}, "preference.beta must be above 0"),
        ({"label_smoothing": 0.5}, "preference.label_smoothing must be in"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "but ipo has none"),
        ({"rpo_alpha": -1.0}, "preference.rpo_alpha must be 0"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(how, says):
    with pytest.raises(UserError, match=says):
        PreferenceLoss(**how)
