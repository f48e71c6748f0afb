"""Self-consistency: the answer that most of k samples give (Wang et al. 2022, arXiv 2203.11171).

Samples vote with what the task's verifier would read of them (`etude.tasks.votes`), so numbers count by value and choices by letter; of
free text only the same words are the same vote. The first sample of the answer with most votes is given, its share of all k the confidence;
without a vote there is no answer. Identity: k = 1 is one sample.
"""

from etude.decoding.pool import Decoded, Pool
from etude.tasks.votes import Tally, vote


def majority(pool: Pool, k: int) -> list[Decoded]:
    found = []
    for task, samples in zip(pool.tasks, pool.samples(k), strict=True):
        answers = [pool.sample(sample) for sample in samples]
        votes = [vote(answer.text, task) for answer in answers]
        tally = Tally.of(votes)
        if tally.winner is None:
            found.append(Decoded(None, confidence=0.0, notes=("no sample gives an answer that can be read",)))
            continue
        found.append(Decoded.of(answers[votes.index(tally.winner)], confidence=tally.share(tally.winner)))
    return found
