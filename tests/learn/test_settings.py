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


def test_gspo_recomputes_what_its_ratios_are_to_unless_it_is_told_not_to():
    assert [loss for loss in POLICY_LOSSES if Learning(loss=loss).has_recomputed_ratios] == ["gspo"]
    assert not Learning(loss="gspo", recompute_old_logprobs=False).has_recomputed_ratios
    with pytest.raises(UserError, match=r"recompute_old_logprobs is for the ratios of .*, and imitation has none"):
        Learning("imitation", recompute_old_logprobs=True)


@pytest.mark.parametrize("wrong", [{"clip_low": 1.5}, {"clip_low": -0.1}, {"clip_high": -0.1}, {"pass_k": 0}])
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(UserError, match=rf"learn\.{next(iter(wrong))} (must be|0 or more)"):
        Learning(**wrong)
