"""Answers that mean the same in other words, by the cosine of their embeddings: a text joins the first cluster whose first text it is like.

Kuhn et al. 2023 (semantic entropy, arXiv 2302.09664) ask a model of entailment whether two answers mean the same; an embedding is cheaper
and coarser: "The capital of Australia is Canberra." and the same of Sydney are at 0.88 by all-MiniLM-L6-v2, two wordings of the former at
0.96, "Canberra" and its sentence at 0.82. Identity: `same` 1 puts equal texts alone together.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from etude.models.embedding import Embed


def clusters(groups: Sequence[Sequence[str]], embed: Embed, same: float) -> list[list[int | None]]:
    """For each group of texts the number of each one's cluster; None for one that says nothing. All are embedded at once."""
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
