"""Expected Attention: ranks tokens by the expected attention of future queries (Devoto et al. 2025, arXiv 2510.00636; by kvpress' code).

Queries are modelled as normal, with the mean m and the covariance S of earlier queries before rotation, and rotated by R, the mean rotation
of future positions:

    importance_i = softmax_i(k_i R m / sqrt(d) + k_i R S R' k_i / 2d), averaged over the query heads of a key, times ||v_i||

The first tokens, which are always kept, are excluded.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class ExpectedAttention(Score):
    """The Expected Attention score over the next `future` positions."""

    future: int = 512
    by_covariance: bool = True
    by_value: bool = True

    sinks: int = 4
    """Number of first tokens that are excluded from the softmax, and whose queries are excluded from the moments."""

    @property
    def moments_from(self) -> int | None:
        return self.sinks

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        assert inputs.moments is not None
        heads = len(inputs.keys_HTD)
        position_T = torch.arange(inputs.seen, inputs.seen + self.future)
        mean_ND = inputs.rotation.mean_turned(inputs.module, inputs.moments.mean_ND.float()[:, None], position_T)[:, 0]
        keys_HTD = inputs.keys_HTD.float()
        scores_HRT = torch.einsum("hrd,htd->hrt", mean_ND.unflatten(0, (heads, -1)), keys_HTD) * inputs.scale
        if self.by_covariance:
            half = inputs.rotation.mean_turned(inputs.module, inputs.moments.covariance_NDD.float(), position_T)
            turned_HRDD = inputs.rotation.mean_turned(inputs.module, half.mT, position_T).unflatten(0, (heads, -1))
            scores_HRT = scores_HRT + torch.einsum("htd,hrde,hte->hrt", keys_HTD, turned_HRDD, keys_HTD) * inputs.scale**2 / 2
        is_ranked_HT = inputs.is_there_HT & (inputs.position_HT >= self.sinks)
        read_HT = scores_HRT.masked_fill(~is_ranked_HT[:, None], -torch.inf).softmax(-1).nan_to_num().mean(1)
        return read_HT * inputs.values_HTD.float().norm(dim=-1) if self.by_value else read_HT
