"""Loss functions: (outputs, tokens) → scalar and metrics. They are pure; to add one, write a function and a line in a table."""

from etude.learn.loss_settings import CovarianceSettings, PreferenceLoss
from etude.learn.losses.covariance import Covariance, clip_cov, kl_cov
from etude.learn.losses.imitate import negative_log_likelihood
from etude.learn.losses.kl import kl
from etude.learn.losses.policy import cispo, gspo, ppo
from etude.learn.losses.preference import PREFERENCE_LOSSES

POLICY_LOSSES = {"ppo": ppo, "gspo": gspo, "cispo": cispo, "clip_cov": clip_cov, "kl_cov": kl_cov}

__all__ = [
    "POLICY_LOSSES",
    "PREFERENCE_LOSSES",
    "Covariance",
    "CovarianceSettings",
    "PreferenceLoss",
    "kl",
    "negative_log_likelihood",
]
