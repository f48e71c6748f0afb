"""Clusters of answers with the same meaning, by the cosine of their embeddings: a text joins the first cluster whose first text is similar
enough.

Kuhn et al. 2023 (semantic entropy, arXiv 2302.09664) use an entailment model to decide whether two answers mean the same. Departure: an
embedding is cheaper and coarser. With all-MiniLM-L6-v2, "The capital of Australia is Canberra." and the same sentence with Sydney have
cosine 0.88, two wordings of the former 0.96, "Canberra" and its sentence 0.82. Identity: `same` 1 groups only equal texts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from etude.models.embedding import Embed


def clusters(groups: Sequence[Sequence[str]], embed: Embed, same: float) -> list[list[int | None]]:
    """Return for each group of texts the cluster number of each; None for an empty text. All texts are embedded at once."""
    every = list(dict.fromkeys(text.strip() for group in groups for text in group if text.strip()))
    vectors = dict(zip(every, embed(every), strict=True)) if every else {}
    return [_clusters([text.strip() for text in group], vectors, same) for group in groups]


def _clusters(texts: Sequence[str], vectors: Mapping[str, np.ndarray], same: float) -> list[int | None]:
    first: list[str] = []
    numbers: dict[str, int] = {}
    for text in dict.fromkeys(filter(None, texts)):
        like = (number for number, leader in enumerate(first) if vectors[text] @ vectors[leader] >= same)
        numbers[text] = next(like, len(first))
        if numbers[text] == len(first):
            first.append(text)
    return [numbers.get(text) for text in texts]
