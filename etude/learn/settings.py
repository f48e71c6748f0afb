"""What is made of judged attempts."""

from dataclasses import dataclass, field
from typing import Literal

from etude.errors import UserError, at_least, check_known
from etude.learn.credit import CREDIT
from etude.learn.loss_settings import CLIP_RANGES, POLICY_LOSS_NAMES, CovarianceSettings, PreferenceLoss
from etude.learn.optimiser import Optimiser
from etude.learn.pairs import PAIRS
from etude.learn.step_credit import STEP_CREDIT
from etude.learn.training_examples import METHODS
from etude.models.lora_settings import LoRA


@dataclass(frozen=True)
class Preference(PreferenceLoss):
    """Learning from pairs of own attempts."""

    pairs: str = "outcome"
    """`outcome` (the best with the worst of a group), `length_matched` (those of them that differ least in length) or, of searches, `step`
    (the best with the worst step behind one beginning)."""
    pairs_per_task: int = 1
    """Pairs of a group at most."""
    refresh_every: int = 0
    """Steps after which the reference becomes the model as it is then; 0: it stays the model that practice began with."""

    def __post_init__(self) -> None:
        self.check("learn.preference")
        check_known("learn.preference.pairs", self.pairs, PAIRS)
        at_least("learn.preference.pairs_per_task", self.pairs_per_task, 1)
        at_least("learn.preference.refresh_every", self.refresh_every, 0)


@dataclass(frozen=True)
class Learning:
    """What is made of judged attempts."""

    method: str = "credit"
    """`credit` (policy gradient), `imitation` (of own right attempts) or `preference` (of better over worse ones)."""
    credit: str = "centred"
    """`centred` (Dr. GRPO), `standardised` (GRPO), `leave_one_out` (RLOO), `batch`, `pass_at_k` (Pass@k training); of searches also by
    step: `difference` (VinePPO; of independent attempts too, by the values of a step model), `tree` (TreeRL)."""
    pass_k: int = 4
    """Of credit `pass_at_k`: attempts in a set of which the best one counts; 1 is `standardised` (with the population's deviation)."""
    outcome_coefficient: float = 0.0
    """Of credit by step: weight of the outcome's own credit (`centred`) that is added to it."""
    step_values: Literal["soft", "hard"] = "soft"
    """Of searches: what a beginning is worth: the mean score of what went on from there, or 1 where any of it was right and 0 elsewhere
    (Math-Shepherd)."""
    loss: str = "clipped"
    """`clipped` (PPO, DAPO), `sequence` (GSPO), `capped` (CISPO), `clip_cov` and `kl_cov` (which hold back where entropy falls)."""
    clip_low: float | None = None
    """How far below 1 a ratio may fall before credit below 0 stops to push. null: 0.2, of `sequence` 3e-4 (GSPO)."""
    clip_high: float | None = None
    """How far above 1 a ratio may rise before credit above 0 stops to push. null: 0.28 (DAPO), of `sequence` 4e-4 (GSPO)."""
    covariance: CovarianceSettings = field(default_factory=CovarianceSettings)
    aggregation: Literal["token", "sequence", "constant"] = "constant"
    """How tokens are averaged; `constant` divides by explore.max_new_tokens (Dr. GRPO). Turns of a revised attempt add up."""
    epochs: int = 1
    """Passes over a step's attempts; ratios are taken to the behaviour log-probs recorded while sampling."""
    updates_per_epoch: int = 1
    """Parts that an epoch is cut into, by groups; one optimizer step each."""
    rate_by_signal: bool = False
    """Whether an update's rate falls with the share of its groups that have signal, as the length of a plain gradient step does. Adam's is
    as long from one group as from all, so that where few have signal it follows their noise. What is replayed beside them is learned at
    the same rate."""
    turn_discount: float = 1.0
    """Of revised attempts, how much of what later turns gain a turn is credited with: at 1 all, at 0 its own improvement alone."""
    preference: Preference = field(default_factory=Preference)
    keep_all_right: bool = False
    """Whether `imitation` learns from groups too whose attempts are all right."""
    restart: bool = False
    """Whether every step of `imitation` learns from the model on that practice began with, and from all right attempts (STaR, ReST-EM):
    steps should then be large."""
    lora: LoRA = field(default_factory=LoRA)
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-5, warmup_steps=3))

    @property
    def clip(self) -> tuple[float, float]:
        """How far a ratio may go below and above 1: as given, or as the loss has it."""
        low, high = CLIP_RANGES[self.loss]
        return low if self.clip_low is None else self.clip_low, high if self.clip_high is None else self.clip_high

    def __post_init__(self) -> None:
        check_known("learn.method", self.method, METHODS)
        check_known("learn.credit", self.credit, [*CREDIT, *STEP_CREDIT])
        check_known("learn.loss", self.loss, POLICY_LOSS_NAMES)
        if self.outcome_coefficient < 0:
            raise UserError(f"learn.outcome_coefficient must be 0 (off) or more, got {self.outcome_coefficient}")
        at_least("learn.pass_k", self.pass_k, 1)
        at_least("learn.epochs", self.epochs, 1)
        at_least("learn.updates_per_epoch", self.updates_per_epoch, 1)
        self.optimiser.check("learn.optimiser")
        low, high = self.clip
        if not 0 <= low <= 1 or high < 0:
            raise UserError(f"learn.clip_low must be in [0, 1] and learn.clip_high 0 or more, got {low} and {high}")
        if not 0 <= self.turn_discount <= 1:
            raise UserError(f"learn.turn_discount must be in [0, 1], got {self.turn_discount}")
        for name in ("restart", "keep_all_right"):
            if getattr(self, name) and self.method != "imitation":
                raise UserError(
                    f"learn.{name} is for learn.method imitation, not {self.method}: set it to false, or the method to imitation"
                )
        if self.method == "preference" and self.preference.refresh_every and not self.preference.needs_reference:
            raise UserError(
                f"learn.preference.refresh_every is {self.preference.refresh_every}, but {self.preference.loss} has no reference: set it "
                "to 0, or the loss to dpo, ipo or kto"
            )
        if self.rate_by_signal and self.method == "preference":
            raise UserError(
                "learn.rate_by_signal goes by the groups of credit and imitation, and learn.method preference learns from pairs: set it to "
                "false, or the method to credit or imitation"
            )
