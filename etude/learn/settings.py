"""What is made of judged attempts."""

from dataclasses import dataclass, field
from typing import Literal

from etude.errors import UserError, at_least, check_known
from etude.learn.advantages import ADVANTAGES
from etude.learn.loss_settings import CLIP_RANGES, POLICY_LOSS_NAMES, CovarianceSettings, PreferenceLoss
from etude.learn.optimizer import OptimizerSettings
from etude.learn.pairs import PAIRS
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import METHODS
from etude.models.lora_settings import LoRA


@dataclass(frozen=True)
class Preference(PreferenceLoss):
    """Learning from pairs of own attempts."""

    pairs: str = "outcome"
    """`outcome` (the best with the worst of a group), `length_matched` (those of them that differ least in length) or, of searches, `step`
    (the best with the worst step after one beginning)."""
    pairs_per_task: int = 1
    """Pairs of a group at most."""
    ref_model_sync_steps: int = 0
    """Steps after which the reference becomes the model as it is then; 0: it stays the model that practice began with."""

    def __post_init__(self) -> None:
        self.check("learn.preference")
        check_known("learn.preference.pairs", self.pairs, PAIRS)
        at_least("learn.preference.pairs_per_task", self.pairs_per_task, 1)
        at_least("learn.preference.ref_model_sync_steps", self.ref_model_sync_steps, 0)


@dataclass(frozen=True)
class Learning:
    """What is made of judged attempts."""

    method: str = "policy_gradient"
    """`policy_gradient` (reinforcement learning), `imitation` (of own right attempts) or `preference` (of better over worse ones)."""
    advantage: str = "dr_grpo"
    """How much better an attempt was than its group: `grpo`, `dr_grpo`, `rloo`, `lite_ppo`, `pass_at_k` (Pass@k training); of searches
    also by step: `vineppo` (of independent attempts too, by the values of a step model), `treerl`."""
    pass_k: int = 4
    """Of advantage `pass_at_k`: attempts in a set of which the best one counts; 1 is `grpo` (with the population's deviation)."""
    outcome_coef: float = 0.0
    """Of advantages by step: weight of the outcome's own advantage (`dr_grpo`) that is added to them."""
    step_values: Literal["soft", "hard"] = "soft"
    """Of searches: what a beginning is worth: the mean score of what went on from there, or 1 where any of it was right and 0 elsewhere
    (Math-Shepherd)."""
    loss: str = "ppo"
    """`ppo` (clipped ratios of tokens, as in PPO and DAPO), `gspo`, `cispo`, `clip_cov` and `kl_cov` (which hold back where entropy
    falls)."""
    clip_low: float | None = None
    """How far below 1 a ratio may fall before an advantage below 0 stops to push. null: 0.2, of `gspo` 3e-4."""
    clip_high: float | None = None
    """How far above 1 a ratio may rise before an advantage above 0 stops to push. null: 0.28 (DAPO), of `gspo` 4e-4."""
    covariance: CovarianceSettings = field(default_factory=CovarianceSettings)
    loss_agg_mode: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = "seq-mean-token-sum-norm"
    """How tokens are averaged, in verl's words; the last divides by rollout.max_new_tokens (Dr. GRPO). Turns of a revised attempt add
    up."""
    epochs: int = 1
    """Passes over a step's attempts; ratios are taken to the behaviour log-probs recorded while sampling."""
    minibatches_per_epoch: int = 1
    """Parts that an epoch is cut into, by groups; one optimizer step each."""
    scale_lr_by_informative_groups: bool = False
    """Whether an update's rate falls with the share of its groups that have signal, as the length of a plain gradient step does. Adam's is
    as long from one group as from all, so that where few have signal it follows their noise. What is replayed beside them is learned at
    the same rate."""
    turn_discount: float = 1.0
    """Of revised attempts, how much of what later turns gain a turn is rewarded for: at 1 all, at 0 its own improvement alone."""
    preference: Preference = field(default_factory=Preference)
    include_solved_groups: bool = False
    """Whether `imitation` learns from groups too whose attempts are all right."""
    reset_to_initial_each_step: bool = False
    """Whether every step of `imitation` learns from the model on that practice began with, and from all right attempts (STaR, ReST-EM):
    steps should then be large."""
    lora: LoRA = field(default_factory=LoRA)
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=1e-5, warmup_steps=3))

    @property
    def clip(self) -> tuple[float, float]:
        """How far a ratio may go below and above 1: as given, or as the loss has it."""
        low, high = CLIP_RANGES[self.loss]
        return low if self.clip_low is None else self.clip_low, high if self.clip_high is None else self.clip_high

    def most_updates(self, steps: int) -> int:
        """Return how many updates practice may make on one schedule of the learning rate, which a reset begins anew."""
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
