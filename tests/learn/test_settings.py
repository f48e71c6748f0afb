"""What learning refuses, and how far a loss lets ratios go where nobody says so."""

import pytest

from etude.errors import UserError
from etude.learn.losses import POLICY_LOSSES
from etude.learn.settings import Learning


def test_clip_ranges_are_those_of_the_loss_unless_they_are_given():
    found = {loss: Learning(loss=loss).clip for loss in POLICY_LOSSES}
    assert found == dict.fromkeys(POLICY_LOSSES, (0.2, 0.28)) | {"gspo": (3e-4, 4e-4)}
    assert Learning(loss="gspo", clip_high=0.28).clip == (3e-4, 0.28)
    assert Learning(clip_low=0.0).clip == (0.0, 0.28)


@pytest.mark.parametrize("wrong", [{"clip_low": 1.5}, {"clip_low": -0.1}, {"clip_high": -0.1}])
def test_a_clip_outside_its_range_is_refused(wrong):
    with pytest.raises(UserError, match=r"learn\.clip_low must be in \[0, 1\] and learn\.clip_high 0 or more"):
        Learning(**wrong)


def test_a_set_of_no_attempts_is_refused():
    with pytest.raises(UserError, match=r"learn\.pass_k must be at least 1, got 0"):
        Learning(pass_k=0)
