"""Mean and covariance of a row's queries, summed token by token.

Shapes: N query heads, Q queries, D width.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Moments:
    """Sums over the queries so far, in float64."""

    count: int
    sum_ND: torch.Tensor
    squares_NDD: torch.Tensor

    @staticmethod
    def of(queries_NQD: torch.Tensor) -> "Moments":
        queries = queries_NQD.double()  # float64, since squares are summed over a whole text
        return Moments(queries.shape[1], queries.sum(1), queries.mT @ queries)

    def plus(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum_ND + other.sum_ND, self.squares_NDD + other.squares_NDD)

    @property
    def mean_ND(self) -> torch.Tensor:
        return self.sum_ND / max(self.count, 1)

    @property
    def covariance_NDD(self) -> torch.Tensor:
        mean_ND = self.mean_ND
        return self.squares_NDD / max(self.count, 1) - mean_ND[:, :, None] * mean_ND[:, None]
