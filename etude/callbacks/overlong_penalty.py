"""Length penalty: lower the rewards of long attempts, and leave truncated attempts out of the loss (DAPO, arXiv 2503.14476).

Let L be the own tokens of an attempt with its end token, L_max their limit and L_cache a buffer before the limit:

penalty  0                              L <= L_max - L_cache
         (L - (L_max - L_cache)) / L_cache      above, up to L_max
         1                              L > L_max

Soft over-length punishment (eq. 13): advantages come from reward - penalty_weight · penalty. DAPO's rewards are -1 and 1, here they are 0
and 1, so that at weight 1 a right answer of full length is worth a short wrong one, while DAPO's is worth the middle of the two: weight 0.5
is the paper's proportion. The logged rewards do not change. A group with equal rewards may get signal: its shorter answers are better.

`mask_truncated_completions`, overlong filtering (section 3.4): a truncated attempt enters no loss, not even the KL penalty's, since it
might have become right. It counts in its group's statistics, and in the batch size that averages a loss, as in TRL.

Identity: buffer_tokens 0 (or penalty_weight 0) without the mask.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from etude.errors import UserError, at_least
from etude.evaluation.report.panels import Panel
from etude.rollouts.batch import RolloutBatch
from etude.settings.unused import ANY, Read
from etude.tasks.reward import Reward
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class OverlongPenaltySettings:
    """Penalty on overlong attempts (DAPO)."""

    buffer_tokens: int = 0
    """Last tokens of rollout.max_new_tokens over which the penalty rises linearly; 0 = off."""
    penalty_weight: float = 1.0
    """Penalty at full length; 1 = all that a verifier of 0 and 1 gives."""
    mask_truncated_completions: bool = False
    """Leave attempts that were cut off at rollout.max_new_tokens out of the loss; they still count in their group (DAPO, TRL)."""

    def __post_init__(self) -> None:
        at_least("overlong_penalty.buffer_tokens", self.buffer_tokens, 0)
        if not 0 <= self.penalty_weight < float("inf"):
            raise UserError(f"overlong_penalty.penalty_weight must be 0 (none) or more, got {self.penalty_weight}")
        if not self.buffer_tokens and not self.mask_truncated_completions:
            raise UserError("overlong_penalty changes nothing: set overlong_penalty.buffer_tokens, or mask_truncated_completions to true")


def over_length(num_tokens: int, most_tokens: int, buffer_tokens: int) -> float:
    """Return the penalty of an answer, in [0, 1].

    >>> [over_length(length, 16, 4) for length in (12, 13, 16)], over_length(16, 16, 0)
    ([0.0, 0.25, 1.0], 0.0)
    """
    free = most_tokens - buffer_tokens
    return min(1.0, max(0.0, (num_tokens - free) / buffer_tokens)) if buffer_tokens else 0.0


class OverlongPenalty(Callback):
    """Lowers `batch.shaped_rewards` and sets `batch.masked`."""

    name, Settings = "overlong_penalty", OverlongPenaltySettings
    panels = (
        Panel(
            "Length control",
            "share of sampled attempts",
            {"overlong_penalty/penalised": "reward lowered for its length", "overlong_penalty/masked": "cut off and left out"},
        ),
    )
    reads = (Read(("penalty_weight",), "buffer_tokens", ANY),)
    excludes = (
        Excludes(
            "learn.method", "set it to policy_gradient", "changes the rewards that advantages come from", allowed=("policy_gradient",)
        ),
        Excludes("rollout.search.method", "set it to samples", "measures one answer, not several turns", values=("refine",)),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        buffer_tokens, longest = self.settings.buffer_tokens, settings["rollout.max_new_tokens"]
        if not buffer_tokens:
            return
        if settings["learn.advantage"] in ("vineppo", "treerl"):
            raise UserError(
                f"overlong_penalty.buffer_tokens lowers rewards of whole answers, and learn.advantage {settings['learn.advantage']} goes "
                "by what steps are worth: set it to 0, or the advantage to one that compares whole answers"
            )
        if any(name.startswith("callbacks.synthetic_tasks") for name in settings):
            raise UserError(
                "overlong_penalty.buffer_tokens lowers rewards towards rollout.max_new_tokens, which tasks that the model writes do not go "
                "by: set it to 0, or leave synthetic_tasks out"
            )
        if buffer_tokens > longest:
            raise UserError(
                f"overlong_penalty.buffer_tokens is {buffer_tokens}, more than an answer may have (rollout.max_new_tokens {longest}): set "
                f"it to {longest} or less"
            )

    def start(self, run: "PracticeRun") -> None:
        self.most_tokens = run.settings.rollout.max_new_tokens

    def before_update(self, batch: RolloutBatch) -> Metrics:
        how = self.settings
        penalties = [
            [how.penalty_weight * over_length(each.num_own_tokens, self.most_tokens, how.buffer_tokens) for each in group.attempts]
            for group in batch.groups
        ]
        if how.mask_truncated_completions:
            batch.masked = [
                [was or attempt.finish == "length" for was, attempt in zip(row, group.attempts, strict=True)]
                for row, group in zip(batch.masked, batch.groups, strict=True)
            ]
        batch.shaped_rewards = [
            [_lowered(*each) for each in zip(row, own, strict=True)] for row, own in zip(batch.shaped_rewards, penalties, strict=True)
        ]
        flat = [penalty for row in penalties for penalty in row]
        shares = {"penalised": sum(penalty > 0 for penalty in flat), "penalty": sum(flat), "masked": sum(map(sum, batch.masked))}
        return {f"overlong_penalty/{name}": value / len(flat) for name, value in shares.items()}


def _lowered(reward: Reward, penalty: float) -> Reward:
    """Return the lowered reward of an attempt with one turn; `score` stays, `turn_scores` determine advantages."""
    return replace(reward, turn_scores=(reward.score - penalty,)) if penalty and reward.score is not None else reward
