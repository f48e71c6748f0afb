"""Page summaries: bounds of each channel of a page's keys, which promise how much attention a query would give to the page.

    score(q, page) = sum_d max(q_d low_d, q_d high_d)

    bounds   low, high = the page's least and greatest key, by channel: no key of the page has a larger product (Quest, Tang et al. 2024,
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
"""What can be known of pages that are not read: a summary of each, or of their single keys (`etude.kv_cache.key_index`)."""


def width_of(how: Summary, width: int) -> int:
    """Return X, the numbers of a summary, for keys of this width."""
    return width if how == "mean" else 2 * width


def summarised(keys_PTD: torch.Tensor, how: Summary) -> torch.Tensor:
    """Summarise each page, [P, X]: `high` and `low` one after the other, or once where they are equal.

    Raises UserError for a summary that is unknown.
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
    """Lay out queries for summaries of so many numbers, [..., Q, X], so that a score is one product: a channel of the query that is above 0
    meets `high`, else `low`.
    """
    return queries_QD if numbers == queries_QD.shape[-1] else torch.cat([queries_QD.clamp(min=0), queries_QD.clamp(max=0)], -1)


Past = Callable[[int, int], torch.Tensor]
"""Returns the keys [H, P, T, D] of a row's first pages; takes the row and how many."""


class PageSummaries:
    """Summaries of a layer's full pages, with spare room after each row's own. What they rank is pages."""

    directions_BHDX = None
    """A key index alone has directions."""
    head_bytes = 0
    """Bytes of a head of a row, however many pages it has."""

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
        """Summarise new pages, at these places of these rows."""
        self.known_BHPX[rows, :, at] = summarised(keys_NHTD.flatten(0, 1), self.how).unflatten(0, keys_NHTD.shape[:2])

    def take_back(self, row: int, pages: int, past: Past) -> None:
        """Do nothing: the pages of a row that are left keep their summaries."""

    def asked(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> torch.Tensor:
        """Lay out queries of these rows for summaries, [B, H, R, X]."""
        return halves(queries_BHRD.float(), self.known_BHPX.shape[-1])

    def promised(self, rows: np.ndarray, asked_BHRX: torch.Tensor, pages: int) -> torch.Tensor:
        """Return the score of each of these rows' first pages for each query, [B, H, R, P]."""
        return asked_BHRX @ self.known_BHPX[rows, :, :pages].float().mT
