"""The kernels of `update.cpp`: the operations between the matrix products of an update, forward and backward.

Residuals, weights of norms and all sums are float32; inputs of products have the update's precision. Shapes: N tokens, E hidden width, F
width of the gate, S concatenated heads ([H queries, K keys, K values]), D head width, M chosen tokens, V vocabulary.
"""

import ctypes
from dataclasses import dataclass
from functools import cache

import torch

from etude.kernels.compiled import AT, DTYPES, NUMBER, REAL, at, in_both, library


@dataclass(frozen=True)
class Trees:
    """Concatenated rows of tokens, each a tree in preorder: a token is visible from itself up to the end of its branch."""

    starts: torch.Tensor
    """The first token of each row, and the end of the last one."""
    ends_N: torch.Tensor
    """The end of the tokens that attend to each token: the end of its row in a row without branches."""

    def with_strangers(self, number: int) -> "Trees":
        """Return these rows and one more, of `number` tokens that each attend only to themselves."""
        ends = self.ends_N.new_tensor(range(len(self.ends_N) + 1, len(self.ends_N) + number + 1))
        return Trees(torch.cat([self.starts, self.starts[-1:] + number]), torch.cat([self.ends_N, ends])) if number else self

    def arguments(self) -> tuple[int, int, int]:
        return at(self.starts), len(self.starts) - 1, at(self.ends_N)


def kernels_for(device: torch.device, dtype: torch.dtype) -> "UpdateKernels | None":
    """Return the kernels for an update of a precision. Returns None, with one warning, if there are none."""
    return _kernels().get(dtype) if device.type == "cpu" and dtype in DTYPES else None


class UpdateKernels:
    """Operations on a CPU with products of one precision. Tensors are contiguous."""

    def __init__(self, found: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._call = {name: getattr(found, f"{name}_{DTYPES[dtype]}") for name in _DECLARED}

    def norm(self, x_NE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute x / √(mean x² + ε) · weight, and 1 / √(mean x² + ε) for each token."""
        found_NE, inverse_N = torch.empty_like(x_NE, dtype=self.dtype), x_NE.new_empty(len(x_NE))
        self._call["norm"](at(x_NE), *x_NE.shape, at(weight_E), epsilon, at(found_NE), at(inverse_N))
        return found_NE, inverse_N

    def norm_backward(
        self,
        slope_NE: torch.Tensor,
        x_NE: torch.Tensor,
        inverse_N: torch.Tensor,
        weight_E: torch.Tensor,
        residual_NE: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the gradients of x, added to the residual's, and of the weight."""
        found_NE, found_E = torch.empty_like(x_NE), torch.empty_like(weight_E)
        more = None if residual_NE is None else at(residual_NE)
        given = at(slope_NE), at(x_NE), at(inverse_N), at(weight_E), more
        self._call["norm_backward"](*given, *x_NE.shape, at(found_NE), at(found_E))
        return found_NE, found_E

    def gated(self, both_N2F: torch.Tensor) -> torch.Tensor:
        """Compute SiLU(gate) · up of [gate, up]."""
        found_NF = both_N2F.new_empty(len(both_N2F), both_N2F.shape[1] // 2)
        self._call["gated"](at(both_N2F), *found_NF.shape, at(found_NF))
        return found_NF

    def gated_backward(self, both_N2F: torch.Tensor, slope_NF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the result of `gated` again, and the gradients of [gate, up]."""
        found_NF, found_N2F = torch.empty_like(slope_NF), torch.empty_like(both_N2F)
        self._call["gated_backward"](at(both_N2F), at(slope_NF), *slope_NF.shape, at(found_NF), at(found_N2F))
        return found_NF, found_N2F

    def rotate(self, states_NSD: torch.Tensor, heads: int, cos_ND: torch.Tensor, sin_ND: torch.Tensor, *, back: bool = False) -> None:
        """Apply rotary embeddings to the first `heads` heads in place: x cos + (-x₂, x₁) sin; `back`: the inverse, for gradients."""
        rows, stride, width = len(states_NSD), states_NSD.stride(0), states_NSD.shape[2]
        assert cos_ND.shape == sin_ND.shape == (rows, width), "positions turn whole heads"
        self._call["rotate"](at(states_NSD), rows, stride, heads, width, at(cos_ND), at(sin_ND), -1.0 if back else 1.0)

    def attend(self, states_NSD: torch.Tensor, trees: Trees, heads: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attention output [N, H, D], and log Σ exp of the scores [N, H]."""
        number, all_heads, width = states_NSD.shape
        read_NHD, normaliser_NH = states_NSD.new_empty(number, heads, width), torch.empty(number, heads, dtype=torch.float32)
        sizes = heads, (all_heads - heads) // 2, width, scale
        self._call["attend"](at(states_NSD), *trees.arguments(), *sizes, at(read_NHD), at(normaliser_NH))
        return read_NHD, normaliser_NH

    def attend_backward(
        self,
        states_NSD: torch.Tensor,
        trees: Trees,
        scale: float,
        read_NHD: torch.Tensor,
        normaliser_NH: torch.Tensor,
        slope_NHD: torch.Tensor,
    ) -> torch.Tensor:
        """Return the gradients of queries, keys and values [N, S, D]."""
        heads, found_NSD = read_NHD.shape[1], torch.empty_like(states_NSD)
        sizes = heads, (states_NSD.shape[1] - heads) // 2, states_NSD.shape[2], scale
        given = at(read_NHD), at(normaliser_NH), at(slope_NHD), at(found_NSD)
        self._call["attend_backward"](at(states_NSD), *trees.arguments(), *sizes, *given)
        return found_NSD

    def chosen(
        self, logits_MV: torch.Tensor, targets_M: torch.Tensor, temperatures_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the log-probs of the targets, the entropies, and the normalisers log Σ exp of softmax(logits / temperature)."""
        found, inverse_M = torch.empty(3, len(targets_M), dtype=torch.float32), (1 / temperatures_M).float()
        self._call["chosen"](at(logits_MV), *logits_MV.shape, at(inverse_M), at(targets_M), *map(at, found))
        return found[0], found[1], found[2]

    def chosen_backward(
        self,
        logits_MV: torch.Tensor,
        targets_M: torch.Tensor,
        temperatures_M: torch.Tensor,
        normaliser_M: torch.Tensor,
        slope_M: torch.Tensor,
        entropy: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        """Replace logits by their gradients, from those of the log-probs and, if `entropy` is given, from the entropies and their
        gradients [M].
        """
        inverse_M = (1 / temperatures_M).float()
        given = at(inverse_M), at(targets_M), at(normaliser_M), at(slope_M), *map(at, entropy or ())
        name = "chosen_backward_with_entropy" if entropy else "chosen_backward"
        self._call[name](at(logits_MV), *logits_MV.shape, *given)


_TREES = [AT, NUMBER, AT]
_DECLARED = {
    "norm": [AT, NUMBER, NUMBER, AT, REAL, AT, AT],
    "norm_backward": [AT, AT, AT, AT, AT, NUMBER, NUMBER, AT, AT],
    "gated": [AT, NUMBER, NUMBER, AT],
    "gated_backward": [AT, AT, NUMBER, NUMBER, AT, AT],
    "rotate": [AT, NUMBER, NUMBER, NUMBER, NUMBER, AT, AT, REAL],
    "attend": [AT, *_TREES, NUMBER, NUMBER, NUMBER, REAL, AT, AT],
    "attend_backward": [AT, *_TREES, NUMBER, NUMBER, NUMBER, REAL, AT, AT, AT, AT],
    "chosen": [AT, NUMBER, NUMBER, AT, AT, AT, AT, AT],
    "chosen_backward": [AT, NUMBER, NUMBER, AT, AT, AT, AT],
    "chosen_backward_with_entropy": [AT, NUMBER, NUMBER, AT, AT, AT, AT, AT, AT],
}


@cache
def _kernels() -> dict[torch.dtype, UpdateKernels]:
    """Load the kernels once; empty where there are none."""
    found = library("update.cpp", in_both(_DECLARED))
    return {} if found is None else {dtype: UpdateKernels(found, dtype) for dtype in DTYPES}
