"""What is known of a page of keys without reading it: bounds of each channel, from which comes how much a query may find there.

    score(q, page) = sum_d max(q_d low_d, q_d high_d)

    bounds   low, high = the page's least and greatest key, by channel: no key of the page has a larger product (Quest, Tang et al. 2024,
             ICML, arXiv 2406.10774)
    cuboid   low, high = c - r, c + r with c the middle of the bounds and r the mean distance from it (ArkVale, Chen et al. 2024, NeurIPS;
             by its code): fewer promises that the page does not keep
    mean     low = high = the mean key: the score is its product

Shapes: P pages, T tokens of one, Q queries, D width, X of a digest.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from etude.errors import unknown

Digest = Literal["bounds", "cuboid", "mean"]
DIGESTS: tuple[Digest, ...] = ("bounds", "cuboid", "mean")


def width_of(how: Digest, width: int) -> int:
    """X, numbers of a digest, for keys of this width."""
    return width if how == "mean" else 2 * width


def digested(keys_PTD: torch.Tensor, how: Digest) -> torch.Tensor:
    """[P, X]: of each page `high` and `low`, or what both are."""
    match how:
        case "bounds":
            low_PD, high_PD = keys_PTD.amin(1), keys_PTD.amax(1)
        case "cuboid":
            middle_PD = (keys_PTD.amin(1) + keys_PTD.amax(1)) / 2
            radius_PD = (keys_PTD - middle_PD[:, None]).abs().mean(1)
            low_PD, high_PD = middle_PD - radius_PD, middle_PD + radius_PD
        case "mean":
            return keys_PTD.mean(1)
        case _:
            raise unknown("digest", how, DIGESTS)
    return torch.cat([high_PD, low_PD], -1)


def halves(queries_QD: torch.Tensor, numbers: int) -> torch.Tensor:
    """Queries as they meet digests of so many numbers, [..., Q, X], so that a score is one product: where a channel of the query is above 0
    it meets `high`, else `low`.
    """
    return queries_QD if numbers == queries_QD.shape[-1] else torch.cat([queries_QD.clamp(min=0), queries_QD.clamp(max=0)], -1)


Past = Callable[[int, int], torch.Tensor]
"""The keys [H, P, T, D] of the first so many pages of a row."""


class Digests:
    """Of a layer's full pages, with room to spare behind each row's own. What is chosen is pages."""

    directions_BHDX = None
    """Sketches alone have some."""
    head_bytes = 0
    """What a head of a row takes however many pages it has."""

    def __init__(self, how: Digest, keys_BHTD: torch.Tensor) -> None:
        rows, heads, _, width = keys_BHTD.shape
        self.how, self.known_BHPX = how, keys_BHTD.new_zeros(rows, heads, 0, width_of(how, width))

    @property
    def bytes(self) -> int:
        return self.known_BHPX.untyped_storage().nbytes()

    def of(self, rows: Sequence[int]) -> "Digests":
        """Those of these rows, a copy."""
        other = copy.copy(self)
        other.known_BHPX = self.known_BHPX[rows]
        return other

    def put(self, rows: Sequence[int], at: Sequence[int], keys_NHTD: torch.Tensor, past: Past) -> None:
        """New pages, at these places of these rows."""
        self.known_BHPX[rows, :, at] = digested(keys_NHTD.flatten(0, 1), self.how).unflatten(0, keys_NHTD.shape[:2])

    def take_back(self, row: int, pages: int, past: Past) -> None:
        """So many pages of a row are left, whose digests stay as they are."""

    def asked(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> torch.Tensor:
        """Queries of these rows as they meet digests, [B, H, R, X]."""
        return halves(queries_BHRD.float(), self.known_BHPX.shape[-1])

    def promised(self, rows: np.ndarray, asked_BHRX: torch.Tensor, pages: int) -> torch.Tensor:
        """The score of each of these rows' first pages for each query, [B, H, R, P]."""
        return asked_BHRX @ self.known_BHPX[rows, :, :pages].float().mT
