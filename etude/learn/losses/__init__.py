"""Loss functions: (outputs, tokens) → scalar and metrics. Pure; a new one is a new function and a line in a table."""

from etude.learn.losses.anchor import kl
from etude.learn.losses.covariance import Covariance, CovarianceSettings, clip_cov, kl_cov
from etude.learn.losses.imitate import negative_log_likelihood
from etude.learn.losses.policy import capped, clipped, sequence
from etude.learn.losses.preference import PREFERENCE_LOSSES, PreferenceLoss

POLICY_LOSSES = {"clipped": clipped, "sequence": sequence, "capped": capped, "clip_cov": clip_cov, "kl_cov": kl_cov}
CLIP_RANGES = dict.fromkeys(POLICY_LOSSES, (0.2, 0.28)) | {"sequence": (3e-4, 4e-4)}
"""How far below and above 1 a ratio may go by default: DAPO's for a token, GSPO's for a sequence, whose ratio is a mean over its tokens and
stays within some thousandths of 1.
"""

__all__ = [
    "CLIP_RANGES",
    "POLICY_LOSSES",
    "PREFERENCE_LOSSES",
    "Covariance",
    "CovarianceSettings",
    "PreferenceLoss",
    "kl",
    "negative_log_likelihood",
]
