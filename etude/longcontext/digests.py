"""What is known of a page of keys without reading it: bounds of each channel, from which comes how much a query may find there.

    score(q, page) = sum_d max(q_d low_d, q_d high_d)

    bounds   low, high = the page's least and greatest key, by channel: no key of the page has a larger product (Quest, Tang et al. 2024,
             ICML, arXiv 2406.10774)
    cuboid   low, high = c - r, c + r with c the middle of the bounds and r the mean distance from it (ArkVale, Chen et al. 2024, NeurIPS;
             by its code): fewer promises that the page does not keep
    mean     low = high = the mean key: the score is its product

Shapes: P pages, T tokens of one, Q queries, D width, X of a digest.
"""

from typing import Literal

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


def promised(queries_QD: torch.Tensor, digests_PX: torch.Tensor) -> torch.Tensor:
    """The score of each page for each query: [..., Q, D] and [..., P, X] to [..., Q, P]. One product: where a channel of the query is above
    0 it meets `high`, else `low`.
    """
    return halves(queries_QD, digests_PX.shape[-1]) @ digests_PX.mT


def halves(queries_QD: torch.Tensor, numbers: int) -> torch.Tensor:
    """Queries as they meet digests of so many numbers, [..., Q, X]."""
    return queries_QD if numbers == queries_QD.shape[-1] else torch.cat([queries_QD.clamp(min=0), queries_QD.clamp(max=0)], -1)
