"""Selection of the pages that a layer's heads read for a token: the first page, and those whose summaries score highest.

    worth(page) = max over the query heads that share its keys of softmax over pages of score(query, summary)

A key index selects single tokens in the same way. The open page is always read.

Shapes: B rows, H key/value heads, R query heads that share one, U units of pages, K of them read, D width.
"""

import copy
from typing import Protocol

import numpy as np
import torch

from etude.kv_cache.page_store import PageStore
from etude.kv_cache.paged_kernels import kernels_over


class Selecting(Protocol):
    """The policy of a selection (`etude.kv_cache.retrieval.PagedRetrieval`)."""

    @property
    def prefetch_pages(self) -> int: ...

    @property
    def unit_tokens(self) -> int: ...

    def units(self, seen: int, layer: int) -> int: ...


class PageSelection:
    """Selects the pages that layer `number` reads, token by token."""

    def __init__(self, policy: Selecting, number: int) -> None:
        self.policy, self.number = policy, number
        self.policy_B: list[Selecting] = []
        """The policy of each row, since budgets may differ."""
        self.ahead = np.zeros(0, dtype=np.int64)
        """Units that the next token may read, in addition to those selected last."""
        self.units_read = 0
        """Number of units that heads have read during generation."""
        self.generated_B = np.zeros(0, dtype=np.int64)
        """Number of tokens that each row has generated."""

    def start(self, rows: int) -> None:
        """Start with this number of rows."""
        self.policy_B, self.generated_B = [self.policy] * rows, np.zeros(rows, dtype=np.int64)

    def copy(self) -> "PageSelection":
        other = copy.copy(self)
        other.generated_B = self.generated_B.copy()
        return other

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, repeats allowed."""
        self.policy_B, self.generated_B = [self.policy_B[row] for row in rows], self.generated_B[rows]

    def reads_B(self, pages: PageStore, rows: np.ndarray) -> np.ndarray:
        """Return how many units of full pages each of these rows reads."""
        most = [self.policy_B[row].units(int(pages.tokens_B[row]), self.number) for row in rows]
        return np.array(most, dtype=np.int64).clip(max=pages.full_B[rows] * pages.units)

    def chosen(self, pages: PageStore, rows: np.ndarray, queries_BHRD: torch.Tensor, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """Select the units of full pages that each head reads of these rows. Returns them [B, H, K], and which entries are valid: rows with
        fewer units are padded at the end.
        """
        assert pages.known
        full_B, most_B = pages.full_B[rows], self.reads_B(pages, rows)
        units_B = full_B * pages.units
        heads, most = queries_BHRD.shape[1], int(most_B.max(initial=0))
        # everything is read: nothing to select
        if (most_B == units_B).all():
            chosen_BHK = np.broadcast_to(np.arange(most), (len(rows), heads, most)).copy()
            return chosen_BHK, chosen_BHK < units_B[:, None, None]
        is_chosen_BHK = np.broadcast_to(np.arange(most) < most_B[:, None, None], (len(rows), heads, most)).copy()
        asked_BHRX = pages.known.asked(rows, queries_BHRD.float() * scale)
        # by a kernel, unless prefetching needs the order of the pages
        kernels = kernels_over(pages, queries_BHRD)
        if kernels and not self.policy.prefetch_pages:
            known_BHPX = pages.known.known_BHPX if len(rows) == len(pages.tokens_B) else pages.known.known_BHPX[rows]
            best_BHK = kernels.best_pages(asked_BHRX, known_BHPX, torch.from_numpy(full_B), torch.from_numpy(most_B), most)
            return best_BHK.numpy(), is_chosen_BHK
        # the same with torch operations
        longest = int(units_B.max())
        promises_BHRU = pages.known.promised(rows, asked_BHRX, int(full_B.max()))
        is_unit_BU = torch.from_numpy(np.arange(longest) < units_B[:, None]).to(promises_BHRU.device)
        worth_BHU = promises_BHRU.masked_fill(~is_unit_BU[:, None, None], -torch.inf).softmax(-1).nan_to_num().amax(2)
        worth_BHU[:, :, 0] = torch.inf
        worth_BHU = worth_BHU.masked_fill(~is_unit_BU[:, None], -1)
        order_BHU = worth_BHU.topk(min(most + self.policy.prefetch_pages, longest), dim=-1).indices.cpu().numpy()
        self.ahead = self._next_units(pages, rows, order_BHU, most_B)
        return order_BHU[:, :, :most], is_chosen_BHK

    def _next_units(self, pages: PageStore, rows: np.ndarray, order_BHU: np.ndarray, most_B: np.ndarray) -> np.ndarray:
        """Return the units ranked directly after those that each row reads, which the next token may need."""
        place_BHU = np.arange(order_BHU.shape[2])[None, None] - most_B[:, None, None]
        is_there_BHU = order_BHU < pages.full_B[rows][:, None, None] * pages.units
        is_next_BHU = (place_BHU >= 0) & (place_BHU < self.policy.prefetch_pages) & is_there_BHU
        found: np.ndarray = pages.numbers_of(rows, order_BHU)[is_next_BHU]
        return found
