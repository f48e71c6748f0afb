"""Self-reflection: the model reads its k samples in one prompt and answers again.

This is the baseline of integrative decoding (Cheng et al. 2025, arXiv 2410.01556), with etude's wording. Empty samples are skipped; if none
remains, or the list leaves no room, there is no answer.
"""

from etude.decoding.joint_inputs import NOTHING
from etude.decoding.numbered_answers import with_numbered_answers
from etude.decoding.sample_pool import DecodedAnswer, SamplePool

WORDS = "Some of these answers may be wrong. Compare them, keep what is right, and answer the question once more, with the answer alone."


def self_reflection(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    """Answer each question after showing the model all of its samples."""
    texts = [[pool.sample(sample).text for sample in own] for own in pool.samples(k)]
    spoken = [[text for text in own if text.strip()] for own in texts]
    tasks = [
        with_numbered_answers(pool.engine.tokenizer, task, own, WORDS) if own else None
        for task, own in zip(pool.tasks, spoken, strict=True)
    ]
    return [
        DecodedAnswer(None, notes=(NOTHING,)) if answer is None else DecodedAnswer.of(answer) for answer in pool.asked(tasks, is_heard=True)
    ]
