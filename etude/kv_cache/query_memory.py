"""The queries that a score uses: the last ones of each row (`Score.window`), and their mean and covariance (`Score.moments_from`).

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, W queries of a window, D width.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from etude.kv_cache.moments import Moments
from etude.kv_cache.scores.score import Score


class QueryMemory:
    """The queries that one score uses."""

    def __init__(self, score: Score) -> None:
        self.score = score
        self.queries_BNWD: torch.Tensor | None = None
        """Rotated queries of the last tokens; a row with fewer has them at the end."""
        self.remembered_B = np.zeros(0, dtype=np.int64)
        """Number of stored queries of each row."""
        self.moments_B: list[Moments] = []

    @property
    def is_needed(self) -> bool:
        """Whether the score uses queries."""
        return self.score.window > 0 or self.score.moments_from is not None

    @property
    def bytes(self) -> int:
        stores = [] if self.queries_BNWD is None else [self.queries_BNWD]
        stores += [part for moments in self.moments_B for part in (moments.sum_ND, moments.squares_NDD)]
        return sum(store.untyped_storage().nbytes() for store in stores)

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, repeats allowed."""
        self.moments_B = [self.moments_B[row] for row in rows] if self.moments_B else []
        if self.queries_BNWD is not None:
            self.queries_BNWD, self.remembered_B = self.queries_BNWD[rows], self.remembered_B[rows]

    def add(self, row: int, queries_NQD: torch.Tensor, seen: int, rows: int, unrotated: Callable[[int], torch.Tensor]) -> None:
        """Add a row's new queries, which follow `seen` others; `unrotated(i)` returns the queries from index `i`, before rotation."""
        if self.score.moments_from is not None:
            if not self.moments_B:
                self.moments_B = [Moments.of(queries_NQD[:, :0])] * rows
            self.moments_B[row] = self.moments_B[row].plus(Moments.of(unrotated(max(0, self.score.moments_from - seen))))
        if self.score.window:
            self.queries_BNWD = self._earlier(rows, queries_NQD)
            self.remembered_B[row] = min(self.score.window, int(self.remembered_B[row]) + queries_NQD.shape[1])
            last_NQD = queries_NQD[:, -self.score.window :]
            self.queries_BNWD[row] = torch.cat([self.queries_BNWD[row, :, last_NQD.shape[1] :], last_NQD], 1)

    def add_token(self, queries_BND: torch.Tensor) -> None:
        """Add the query of a new token of every row."""
        earlier_BNWD = self._earlier(len(queries_BND), queries_BND[0])
        self.queries_BNWD = torch.cat([earlier_BNWD[:, :, 1:], queries_BND[:, :, None]], 2)
        self.remembered_B = np.minimum(self.score.window, self.remembered_B + 1)

    def _earlier(self, rows: int, like_N: torch.Tensor) -> torch.Tensor:
        """Return the stored queries [B, N, W, D]; initially empty, for rows with heads like these [N, ..., D]."""
        if self.queries_BNWD is None:
            self.remembered_B = np.zeros(rows, dtype=np.int64)
            return like_N.new_zeros(rows, len(like_N), self.score.window, like_N.shape[-1])
        return self.queries_BNWD

    def last(self, row: int, keys_HTD: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the queries [H, R, Q, D] of a row's last tokens, by the heads of these keys; empty for a score that needs none."""
        if self.queries_BNWD is None:
            return keys_HTD[0].new_zeros(len(keys_HTD), 0, 0, keys_HTD[0].shape[-1])
        there = int(self.remembered_B[row])
        return self.queries_BNWD[row, :, self.queries_BNWD.shape[2] - there :].unflatten(0, (len(keys_HTD), -1))
