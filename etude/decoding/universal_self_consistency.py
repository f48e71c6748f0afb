"""Universal self-consistency: the model itself names the sample that agrees most with the others.

Chen et al. 2023 (arXiv 2311.17311), with etude's wording. The choice is the first number in the reply. If that names no sample, or the list
leaves no room, the first sample is returned, with a note. The task's instruction, which says how to answer the question, is omitted.
Identity: k = 1 is one sample.
"""

import re
from dataclasses import replace

from etude.decoding.numbered_answers import with_numbered_answers
from etude.decoding.sample_pool import DecodedAnswer, SamplePool

WORDS = (
    "These are {number} answers to the same question. Which of them agrees most with the others? Begin with its number: "
    '"Answer N is the most consistent one."'
)


def universal_self_consistency(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    """Answer each question with the sample that the model names."""
    found = []
    samples = [[pool.sample(sample) for sample in own] for own in pool.samples(k)]
    tokenizer, texts = pool.engine.tokenizer, [[answer.text for answer in own] for own in samples]
    asked = [
        with_numbered_answers(tokenizer, replace(task, instruction=""), own, WORDS)
        if len(set(own)) > 1
        else None  # equal samples leave no choice
        for task, own in zip(pool.tasks, texts, strict=True)
    ]
    for own, question, reply in zip(samples, asked, pool.asked(asked), strict=True):
        place = named_answer(reply.text if reply else "", len(own))
        notes = ("the model named none of its samples",) if question and place is None else ()
        found.append(DecodedAnswer.of(own[place or 0], notes=notes))
    return found


def named_answer(reply: str, number: int) -> int | None:
    """Return the index, from 0, of the answer named by a reply's first number; None if there is no such answer.

    >>> named_answer("Answer 3 is the most consistent one.", 4), named_answer("Answer 7", 4), named_answer("All agree", 4)
    (2, None, None)
    """
    first = re.search(r"\d+", reply)
    return int(first[0]) - 1 if first and len(first[0]) < 10 and 1 <= int(first[0]) <= number else None
