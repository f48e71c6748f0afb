"""Answers that mean the same in other words, by the cosine of their embeddings: a text joins the first cluster whose first text it is like.

Kuhn et al. 2023 (semantic entropy, arXiv 2302.09664) ask a model of entailment whether two answers mean the same; an embedding is cheaper
and coarser: "The capital of Australia is Canberra." and the same of Sydney are at 0.88 by all-MiniLM-L6-v2, two wordings of the former at
0.96, "Canberra" and its sentence at 0.82. Identity: `same` 1 puts equal texts alone together.
"""

from collections.abc import Sequence

from etude.embedding import Embed


def clusters(texts: Sequence[str], embed: Embed, same: float) -> list[int | None]:
    """The number of each text's cluster; None for one that says nothing."""
    spoken = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not spoken:
        return [None] * len(texts)
    vectors_ND = embed(spoken)
    cosines_NN = vectors_ND @ vectors_ND.T
    first: list[int] = []
    numbers = {}
    for place, text in enumerate(spoken):
        like = (number for number, leader in enumerate(first) if cosines_NN[place, leader] >= same)
        numbers[text] = next(like, len(first))
        if numbers[text] == len(first):
            first.append(place)
    return [numbers.get(text.strip()) for text in texts]
