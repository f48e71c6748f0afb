"""CriticalKV: weights any score by a value's contribution to the layer's output (Feng et al. 2025, arXiv 2502.03805; by its code).

`first_share` of the budget without the last tokens goes to the tokens of highest score; the rest goes to those of highest

    (score + epsilon) ||W_o v||_1, averaged over the query heads of a key

with W_o the part of the output projection that reads the head. Identity: `first_share` 1 is the unweighted score.
"""

from dataclasses import dataclass, field

import torch

from etude.errors import UserError
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score
from etude.kv_cache.scores.snapkv import SnapKV


@dataclass(frozen=True)
class CriticalKV(Score):
    """The CriticalKV score `of` another score, whose importance must not be negative.

    Raises UserError for a score by reconstruction, and for negative importance.
    """

    of: Score = field(default_factory=SnapKV)
    first_share: float = 0.5
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        if self.of.reconstruction:
            raise UserError("a score by replay can't be weighed by values: take another one")

    @property
    def sums_attention(self) -> bool:
        return self.of.sums_attention

    @property
    def moments_from(self) -> int | None:
        return self.of.moments_from

    @property
    def window(self) -> int:
        return self.of.window

    @property
    def goes_by_budget(self) -> bool:
        return True

    def recent(self, budget: int) -> int:
        return self.of.recent(budget)

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        importance_HT = inputs.once(self.of)
        if bool((importance_HT < 0).any()):
            raise UserError(f"{type(self.of).__name__} gives importance below 0, which can't be weighed by values: take another score")
        first = min(int(self.first_share * (inputs.budget - inputs.recent)), importance_HT.shape[1])
        by_score_HT = importance_HT.masked_fill(~inputs.is_there_HT, -torch.inf)
        chosen_HK = by_score_HT.argsort(dim=1, descending=True, stable=True)[:, :first]
        weighed_HT = (importance_HT + self.epsilon) * inputs.once(output_norms)
        above_K = 2 - torch.arange(first, device=weighed_HT.device) / max(first, 1)
        return weighed_HT.scatter(1, chosen_HK, weighed_HT.max() * above_K.expand_as(chosen_HK))


def output_norms(inputs: ScoreInputs) -> torch.Tensor:
    """Return ||W_o v||_1 [H, T] of every value. Raises UserError for a layer whose output projection has another name."""
    projection = next((own for name, own in inputs.module.named_children() if name in ("o_proj", "out_proj")), None)
    if projection is None:
        raise UserError(f"{type(inputs.module).__name__} has no o_proj or out_proj, so what a value adds to its output can't be had")
    heads, _, width = inputs.values_HTD.shape
    weight_HRDE = projection.weight.T.reshape(heads, -1, width, projection.weight.shape[0])
    norms = [
        torch.stack([(values_TD.float() @ weight_DE.float()).abs().sum(-1) for weight_DE in weight_RDE]).mean(0)
        for values_TD, weight_RDE in zip(inputs.values_HTD, weight_HRDE, strict=True)
    ]
    return torch.stack(norms)
