"""A 2-bit index of keys: each key's coordinates along the principal directions (PCA) of its head's keys, two bits each.

    place_x = (k - mean) · v_x / (Δ s_x)           v_x: eigenvectors of the covariance of a head's keys, s_x² its largest D / 2 eigenvalues
    code_x  = floor(place_x) + 2, from 0 to 3      Δ = 0.9957: the step at which four even levels lose least of a unit normal (Max 1960)
    q · k   ≈ Σ_x (q · Δ s_x v_x) code_x + a constant

After Loki (Singhania et al. 2024, NeurIPS, arXiv 2406.02542), which ranks tokens by the principal components of their keys. Departures:
Loki keeps the components in full precision and computes the directions once for a model. Here each head of each row has its own directions,
computed from its keys, and again whenever their number has doubled. So a prompt passed in parts has other directions than the same prompt
passed at once.
Cost: one bit for each number of a key, in half precision a 32nd of the token; a head's directions take as much as D / 4 tokens.

Shapes: B rows, H key/value heads, R query heads that share one, P pages, T tokens of one, D width, X = D / 2 directions.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch

from etude.kernels.tables import SKETCHED
from etude.kv_cache.page_summaries import Past

_STEP = 0.9957
_NOTHING = 1e-5
"""Share of the largest variance below which a variance is rounding error."""


def principal_directions(keys_HTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the principal directions [H, D, X] of each head's keys, each as long as a quantisation step, and the mean key's place [H, X]
    along them.

    A small number of keys varies in few directions; the others, which would be arbitrary, are 0.
    """
    with _in_float32(keys_HTD):
        exact_HTD = keys_HTD.float()
        mean_H1D = exact_HTD.mean(1, keepdim=True)
        centred_HTD = exact_HTD - mean_H1D
        covariance_HDD = (centred_HTD.mT @ centred_HTD / keys_HTD.shape[1]).nan_to_num(0, 0, 0)
        variance_HD, vector_HDD = torch.linalg.eigh(covariance_HDD)
    number = keys_HTD.shape[2] // 2
    largest_HX = variance_HD[:, -number:]
    is_none_HX = largest_HX <= _NOTHING * largest_HX[:, -1:]
    step_HX = _STEP * largest_HX.clamp(min=0).sqrt().masked_fill(is_none_HX, 0)
    directions_HDX = (vector_HDD[:, :, -number:] * step_HX[:, None]).to(keys_HTD.dtype)
    return directions_HDX, _places(mean_H1D, directions_HDX)[:, 0]


def encoded(keys_HTD: torch.Tensor, directions_HDX: torch.Tensor, mean_HX: torch.Tensor) -> torch.Tensor:
    """Quantise keys into words [H, P, X], one for each page of `SKETCHED` keys: bits 2 t and 2 t + 1 are the code of the page's key t."""
    codes_HTX = (_places(keys_HTD, directions_HDX) - mean_HX[:, None]).floor().nan_to_num(0).clamp(-2, 1).long() + 2
    shifts_T1 = 2 * torch.arange(SKETCHED, device=keys_HTD.device)[:, None]
    return (codes_HTX.unflatten(1, (-1, SKETCHED)) << shifts_T1).sum(2).to(torch.int32)


def codes_of(words_PX: torch.Tensor, key: int) -> torch.Tensor:
    """Return the codes [..., P, X] of this key of each page."""
    return (words_PX >> 2 * key) & 3


def _places(keys_HTD: torch.Tensor, directions_HDX: torch.Tensor) -> torch.Tensor:
    exact_HDX = directions_HDX.float()
    with _in_float32(keys_HTD):
        return keys_HTD.float() @ (exact_HDX / exact_HDX.square().sum(1, keepdim=True).clamp(min=1e-30))


def _in_float32(like: torch.Tensor) -> torch.autocast:
    """Turn autocast off, since rounded products would distort the directions."""
    return torch.autocast(like.device.type, enabled=False)


class KeyIndex:
    """The index of a layer's full pages, of `SKETCHED` tokens each, with spare room after each row's. It ranks tokens."""

    def __init__(self, keys_BHTD: torch.Tensor) -> None:
        rows, heads, _, width = keys_BHTD.shape
        self.known_BHPX = keys_BHTD.new_zeros(rows, heads, 0, width // 2, dtype=torch.int32)
        self.directions_BHDX = keys_BHTD.new_zeros(rows, heads, width, width // 2)
        self._mean_BHX = keys_BHTD.new_zeros(rows, heads, width // 2, dtype=torch.float32)
        self._found_B: list[tuple[int, ...]] = [()] * rows
        """Number of pages of each row at each computation of its directions."""

    @property
    def head_bytes(self) -> int:
        """Bytes of a row's head that do not depend on the number of pages."""
        return self.directions_BHDX[0, 0].nbytes + self._mean_BHX[0, 0].nbytes

    @property
    def bytes(self) -> int:
        return sum(own.untyped_storage().nbytes() for own in (self.known_BHPX, self.directions_BHDX, self._mean_BHX))

    def of(self, rows: Sequence[int]) -> "KeyIndex":
        """Return a copy of these rows' index."""
        other = copy.copy(self)
        other.known_BHPX, other.directions_BHDX = self.known_BHPX[rows], self.directions_BHDX[rows]
        other._mean_BHX, other._found_B = self._mean_BHX[rows], [self._found_B[row] for row in rows]
        return other

    def put(self, rows: Sequence[int], at: Sequence[int], keys_NHTD: torch.Tensor, past: Past) -> None:
        """Index new pages at these places of these rows; `past` returns them too."""
        for row in dict.fromkeys(rows):
            own = [number for number, its in enumerate(rows) if its == row]
            places, keys_HPTD = [at[number] for number in own], keys_NHTD[own].transpose(0, 1)
            end = max(places) + 1
            if not self._found_B[row] or end >= 2 * self._found_B[row][-1]:
                keys_HPTD, places = keys_HPTD if len(places) == end else past(row, end), list(range(end))
                self._find(row, keys_HPTD)
            self._sketch(row, places, keys_HPTD)

    def take_back(self, row: int, pages: int, past: Past) -> None:
        """Restore the directions that the row had with its `pages` remaining pages."""
        left = tuple(found for found in self._found_B[row] if found <= pages)
        if left != self._found_B[row]:
            self._found_B[row] = left[:-1]
            if left:
                self._find(row, past(row, left[-1]))
                self._sketch(row, list(range(pages)), past(row, pages))

    def _find(self, row: int, keys_HPTD: torch.Tensor) -> None:
        self.directions_BHDX[row], self._mean_BHX[row] = principal_directions(keys_HPTD.flatten(1, 2))
        self._found_B[row] += (keys_HPTD.shape[1],)

    def _sketch(self, row: int, places: list[int], keys_HPTD: torch.Tensor) -> None:
        self.known_BHPX[row][:, places] = encoded(keys_HPTD.flatten(1, 2), self.directions_BHDX[row], self._mean_BHX[row])

    def asked(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> torch.Tensor:
        """Project queries of these rows onto the directions: [B, H, R, X]."""
        with _in_float32(queries_BHRD):
            return queries_BHRD.float() @ self.directions_BHDX[rows].float()

    def promised(self, rows: np.ndarray, asked_BHRX: torch.Tensor, pages: int) -> torch.Tensor:
        """Return the score [B, H, R, P T] of each token of these rows' first pages for each query, up to a constant."""
        words_BHPX = self.known_BHPX[rows, :, :pages]
        with _in_float32(asked_BHRX):  # key by key, since unpacked codes take 16 times the memory
            each = [asked_BHRX @ codes_of(words_BHPX, key).float().mT for key in range(SKETCHED)]
        return torch.stack(each, -1).flatten(-2)
