"""Settings of learning from scored attempts."""

from dataclasses import dataclass, field
from typing import Literal

from etude.errors import UserError, at_least, check_known
from etude.learn.advantages import ADVANTAGES
from etude.learn.loss_settings import CLIP_RANGES, POLICY_LOSS_NAMES, RECOMPUTED_RATIOS, CovarianceSettings, PreferenceLoss
from etude.learn.optimizer import OptimizerSettings
from etude.learn.pairs import PAIRS
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import METHODS
from etude.models.lora_settings import LoRA


@dataclass(frozen=True)
class Preference(PreferenceLoss):
    """Preference optimization on pairs of own attempts (learn.method preference)."""

    pairs: str = "outcome"
    """`outcome` (best and worst attempt of a group), `length_matched` (those of them that differ least in length) or, with tree search,
    `step` (best and worst step after a common prefix)."""
    pairs_per_task: int = 1
    """Most pairs of a group."""
    ref_model_sync_steps: int = 0
    """Steps after which the reference model becomes the current policy; 0 = keep the initial model."""

    def __post_init__(self) -> None:
        self.check("learn.preference")
        check_known("learn.preference.pairs", self.pairs, PAIRS)
        at_least("learn.preference.pairs_per_task", self.pairs_per_task, 1)
        at_least("learn.preference.ref_model_sync_steps", self.ref_model_sync_steps, 0)


@dataclass(frozen=True)
class Learning:
    """Settings of learning from scored attempts: method, advantage, loss and update."""

    method: str = "policy_gradient"
    """`policy_gradient` (RL), `imitation` (of own right attempts) or `preference` (of better over worse attempts)."""
    advantage: str = "dr_grpo"
    """Advantage of an attempt over its group: `grpo`, `dr_grpo`, `rloo`, `lite_ppo`, `pass_at_k` (Pass@k training); per step, with tree
    search: `treerl`, `vineppo` (also for independent attempts, with a step model)."""
    pass_k: int = 4
    """`pass_at_k`: attempts in a set, of which the best one counts; 1 = `grpo` (with the population's standard deviation)."""
    outcome_coef: float = 0.0
    """Per-step advantages: weight of the outcome's advantage (`dr_grpo`) added to them; 0 = off."""
    step_values: Literal["soft", "hard"] = "soft"
    """Tree search: a prefix is worth `soft` = the mean score of its continuations; `hard` = 1 if any of them was right, else 0
    (Math-Shepherd)."""
    loss: str = "ppo"
    """`ppo` (clipped token ratios, as in PPO and DAPO), `gspo`, `cispo`, or `clip_cov` and `kl_cov` (hold back tokens that lower entropy).
    """
    clip_low: float | None = None
    """Clip range of the ratio below 1 (verl: clip_ratio_low), in [0, 1]; null = 0.2, for `gspo` 3e-4."""
    clip_high: float | None = None
    """Clip range of the ratio above 1 (verl: clip_ratio_high), 0 or more; null = 0.28 (DAPO), for `gspo` 4e-4."""
    covariance: CovarianceSettings = field(default_factory=CovarianceSettings)
    loss_agg_mode: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = "seq-mean-token-sum-norm"
    """How the loss is averaged over tokens, as in verl; seq-mean-token-sum-norm divides by rollout.max_new_tokens (Dr. GRPO). Turns of a
    revised attempt add up."""
    epochs: int = 1
    """Passes over a step's attempts; ratios are relative to the policy that sampled them (`recompute_old_logprobs`)."""
    recompute_old_logprobs: bool | None = None
    """Take ratios to the learner's own log-probs before the step's first update, at the cost of a forward pass (verl: bypass_mode false),
    instead of those recorded during sampling, which other kernels round differently; null = true for `gspo`, whose clip range is narrower
    than that rounding, else false."""
    minibatches_per_epoch: int = 1
    """Mini-batches per epoch, split by groups; one optimizer update each."""
    scale_lr_by_informative_groups: bool = False
    """Scale an update's learning rate by the share of its groups with signal. Adam's step is as long with one such group as with all; with
    few, it follows their noise. Replay is learned at the same rate."""
    turn_discount: float = 1.0
    """Revised attempts: discount of later turns' improvements in a turn's reward, in [0, 1]; 0 = only its own improvement, 1 = all."""
    preference: Preference = field(default_factory=Preference)
    include_solved_groups: bool = False
    """`imitation`: learn also from groups whose attempts are all right."""
    reset_to_initial_each_step: bool = False
    """`imitation`: start every step from the initial model, and learn from all right attempts (STaR, ReST-EM); use large steps."""
    lora: LoRA = field(default_factory=LoRA)
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=1e-5, warmup_steps=3))

    @property
    def clip(self) -> tuple[float, float]:
        """Distance of a ratio below and above 1: as set, or the loss's default."""
        low, high = CLIP_RANGES[self.loss]
        return low if self.clip_low is None else self.clip_low, high if self.clip_high is None else self.clip_high

    @property
    def has_recomputed_ratios(self) -> bool:
        """Whether ratios are to recomputed log-probs: as set, or the loss's default."""
        return self.loss in RECOMPUTED_RATIOS if self.recompute_old_logprobs is None else self.recompute_old_logprobs

    def most_updates(self, steps: int) -> int:
        """Return the most updates that practice makes on one learning-rate schedule; a reset restarts it."""
        of_a_step = self.epochs * self.minibatches_per_epoch
        return of_a_step if self.reset_to_initial_each_step else steps * of_a_step

    def __post_init__(self) -> None:
        check_known("learn.method", self.method, METHODS)
        check_known("learn.advantage", self.advantage, [*ADVANTAGES, *STEP_ADVANTAGES])
        check_known("learn.loss", self.loss, POLICY_LOSS_NAMES)
        if self.outcome_coef < 0:
            raise UserError(f"learn.outcome_coef must be 0 (off) or more, got {self.outcome_coef}")
        at_least("learn.pass_k", self.pass_k, 1)
        at_least("learn.epochs", self.epochs, 1)
        at_least("learn.minibatches_per_epoch", self.minibatches_per_epoch, 1)
        self.optimizer.check("learn.optimizer")
        low, high = self.clip
        if not 0 <= low <= 1 or high < 0:
            raise UserError(f"learn.clip_low must be in [0, 1] and learn.clip_high 0 or more, got {low} and {high}")
        if not 0 <= self.turn_discount <= 1:
            raise UserError(f"learn.turn_discount must be in [0, 1], got {self.turn_discount}")
        for name in ("reset_to_initial_each_step", "include_solved_groups"):
            if getattr(self, name) and self.method != "imitation":
                raise UserError(
                    f"learn.{name} is for learn.method imitation, not {self.method}: set it to false, or the method to imitation"
                )
        if self.recompute_old_logprobs and self.method != "policy_gradient":
            raise UserError(
                f"learn.recompute_old_logprobs is for the ratios of learn.method policy_gradient, and {self.method} has none: leave it out"
            )
        if self.method == "preference" and self.preference.ref_model_sync_steps and not self.preference.needs_reference:
            raise UserError(
                f"learn.preference.ref_model_sync_steps is {self.preference.ref_model_sync_steps}, but {self.preference.loss} has no "
                "reference: set it to 0, or the loss to dpo, ipo or kto"
            )
        if self.scale_lr_by_informative_groups and self.method == "preference":
            raise UserError(
                "learn.scale_lr_by_informative_groups goes by the groups of policy_gradient and imitation, and learn.method preference "
                "learns from pairs: set it to false, or the method to policy_gradient or imitation"
            )
