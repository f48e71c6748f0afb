"""Page summaries: bounds of each channel of a page's keys, which estimate a query's attention to the page.

    score(q, page) = sum_d max(q_d low_d, q_d high_d)

    bounds   low, high = the page's minimum and maximum key, by channel: no key of the page has a larger product (Quest, Tang et al. 2024,
             ICML, arXiv 2406.10774)
    cuboid   low, high = c - r, c + r with c the middle of the bounds and r the mean distance from it (ArkVale, Chen et al. 2024, NeurIPS;
             by its code): tighter, but no upper bound
    mean     low = high = the mean key: the score is its product

Shapes: P pages, T tokens of one, Q queries, D width, X numbers of a summary.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from etude.errors import unknown

Summary = Literal["bounds", "cuboid", "mean"]
SUMMARIES: tuple[Summary, ...] = ("bounds", "cuboid", "mean")
Index = Literal["bounds", "cuboid", "mean", "sketch"]
INDEXES: tuple[Index, ...] = (*SUMMARIES, "sketch")
"""Kinds of summaries: of whole pages, or of their single keys (`etude.kv_cache.key_index`)."""


def width_of(how: Summary, width: int) -> int:
    """Return the number X of values in a summary, for keys of this width."""
    return width if how == "mean" else 2 * width


def summarised(keys_PTD: torch.Tensor, how: Summary) -> torch.Tensor:
    """Summarise each page as [P, X]: `high` followed by `low`, or only one if they are equal.

    Raises UserError for an unknown summary.
    """
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
            raise unknown("digest", how, SUMMARIES)
    return torch.cat([high_PD, low_PD], -1)


def halves(queries_QD: torch.Tensor, numbers: int) -> torch.Tensor:
    """Lay out queries as [..., Q, X] for summaries of `numbers` values, so that a score is one product: positive channels of the query are
    multiplied by `high`, others by `low`.
    """
    return queries_QD if numbers == queries_QD.shape[-1] else torch.cat([queries_QD.clamp(min=0), queries_QD.clamp(max=0)], -1)


Past = Callable[[int, int], torch.Tensor]
"""Takes a row and a number of pages; returns the keys [H, P, T, D] of the row's first pages."""


class PageSummaries:
    """Summaries of a layer's full pages, with spare room after each row's. They rank pages."""

    directions_BHDX = None
    """Only a key index has directions."""
    head_bytes = 0
    """Bytes of a row's head that do not depend on the number of pages."""

    def __init__(self, how: Summary, keys_BHTD: torch.Tensor) -> None:
        rows, heads, _, width = keys_BHTD.shape
        self.how, self.known_BHPX = how, keys_BHTD.new_zeros(rows, heads, 0, width_of(how, width))

    @property
    def bytes(self) -> int:
        return self.known_BHPX.untyped_storage().nbytes()

    def of(self, rows: Sequence[int]) -> "PageSummaries":
        """Return a copy of these rows' summaries."""
        other = copy.copy(self)
        other.known_BHPX = self.known_BHPX[rows]
        return other

    def put(self, rows: Sequence[int], at: Sequence[int], keys_NHTD: torch.Tensor, past: Past) -> None:
        """Summarise new pages at these places of these rows."""
        self.known_BHPX[rows, :, at] = summarised(keys_NHTD.flatten(0, 1), self.how).unflatten(0, keys_NHTD.shape[:2])

    def take_back(self, row: int, pages: int, past: Past) -> None:
        """Do nothing, since the remaining pages of a row keep their summaries."""

    def asked(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> torch.Tensor:
        """Lay out queries of these rows as [B, H, R, X], for summaries."""
        return halves(queries_BHRD.float(), self.known_BHPX.shape[-1])

    def promised(self, rows: np.ndarray, asked_BHRX: torch.Tensor, pages: int) -> torch.Tensor:
        """Return the score [B, H, R, P] of each of these rows' first pages for each query."""
        return asked_BHRX @ self.known_BHPX[rows, :, :pages].float().mT
