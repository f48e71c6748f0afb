"""Settings of losses; free of torch, so that they are read and checked without it."""

from dataclasses import dataclass

from etude.errors import UserError, check_known

POLICY_LOSS_NAMES = ("ppo", "gspo", "cispo", "clip_cov", "kl_cov")
"""The names of `etude.learn.losses.POLICY_LOSSES`."""
CLIP_RANGES = dict.fromkeys(POLICY_LOSS_NAMES, (0.2, 0.28)) | {"gspo": (3e-4, 4e-4)}
"""Default distance of a ratio below and above 1: DAPO's for a token, GSPO's for a sequence, whose ratio is a mean over its tokens and stays
within some thousandths of 1.
"""
RECOMPUTED_RATIOS = frozenset({"gspo"})
"""Losses whose ratios are to recomputed log-probs by default: their clip range is narrower than the rounding of recorded ones."""
PREFERENCE_LOSS_NAMES = ("dpo", "ipo", "kto", "simpo")
"""The names of `etude.learn.losses.PREFERENCE_LOSSES`."""


@dataclass(frozen=True)
class PreferenceLoss:
    """Settings of a preference loss."""

    loss: str = "dpo"
    """`dpo`, `ipo`, `kto` or `simpo`."""
    beta: float = 0.1
    """Scale of log-likelihood differences (TRL: beta), above 0; `simpo` needs about 2."""
    simpo_gamma: float = 0.5
    """`simpo`: target margin of the chosen completion."""
    label_smoothing: float = 0.0
    """`dpo`: assumed share of pairs with swapped labels, in [0, 0.5)."""
    rpo_alpha: float = 0.0
    """Weight of the chosen completion's negative log-likelihood; 0 = off."""

    def __post_init__(self) -> None:
        self.check("preference")

    def check(self, name: str) -> None:
        """Raise UserError for invalid values; `name` is the section's name in the settings."""
        check_known(f"{name}.loss", self.loss, PREFERENCE_LOSS_NAMES)
        if self.beta <= 0:
            raise UserError(f"{name}.beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(f"{name}.label_smoothing must be in [0, 0.5), got {self.label_smoothing}")
        if self.label_smoothing and self.loss != "dpo":
            raise UserError(f"{name}.label_smoothing is {self.label_smoothing}, but {self.loss} has none: set it to 0, or the loss to dpo")
        if self.rpo_alpha < 0:
            raise UserError(f"{name}.rpo_alpha must be 0 (off) or more, got {self.rpo_alpha}")

    @property
    def needs_reference(self) -> bool:
        return self.loss != "simpo"

    @property
    def needs_mismatched(self) -> bool:
        """Whether the loss needs likelihoods of completions after other prompts."""
        return self.loss == "kto"


@dataclass(frozen=True)
class CovarianceSettings:
    """Which tokens `clip_cov` and `kl_cov` hold back, and how much."""

    ratio: float = 2e-4
    """Share of all tokens with an advantage to hold back, at least one; 0 = none. The paper uses 2e-4, and 2e-3 for `kl_cov` on 7B models.
    """
    clip_cov_lb: float = 1.0
    """`clip_cov`: lower bound of the covariance of these tokens."""
    clip_cov_ub: float = 5.0
    """`clip_cov`: upper bound of their covariance."""
    ppo_kl_coef: float = 1.0
    """`kl_cov`: coefficient of these tokens' distance to the behaviour log-prob; 0 = off."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise UserError(f"learn.covariance.ratio must be in [0, 1], got {self.ratio}")
        if self.clip_cov_lb >= self.clip_cov_ub:
            raise UserError(
                f"learn.covariance.clip_cov_lb must be below learn.covariance.clip_cov_ub, got {self.clip_cov_lb} and {self.clip_cov_ub}"
            )
        if self.ppo_kl_coef < 0:
            raise UserError(f"learn.covariance.ppo_kl_coef must be 0 or more, got {self.ppo_kl_coef}")
