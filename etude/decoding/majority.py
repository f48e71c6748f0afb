"""Self-consistency: the most frequent answer of k samples (Wang et al. 2022, arXiv 2203.11171).

Samples vote with the answer that the task's verifier would read (`etude.tasks.votes`): numbers count by value, choices by letter, free text
by its exact words. The first sample with the winning answer is returned; its share of all k is the confidence. Without a vote there is no
answer.
Identity: k = 1 is one sample.
"""

from collections.abc import Sequence

from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.engine.completion import Completion
from etude.tasks.votes import Tally, vote


def majority(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    """Return the majority answer to each question."""
    found = []
    for task, samples in zip(pool.tasks, pool.samples(k), strict=True):
        answers = [pool.sample(sample) for sample in samples]
        found.append(
            first_majority_answer(answers, [vote(answer.text, task) for answer in answers], "no sample gives an answer that can be read")
        )
    return found


def first_majority_answer(answers: Sequence[Completion], votes: Sequence[str | None], nothing: str) -> DecodedAnswer:
    """Return the first answer with the most frequent vote, and its share; without votes no answer, with the reason `nothing`."""
    tally = Tally.of(votes)
    if tally.winner is None:
        return DecodedAnswer(None, confidence=0.0, notes=(nothing,))
    return DecodedAnswer.of(answers[votes.index(tally.winner)], confidence=tally.share(tally.winner))
