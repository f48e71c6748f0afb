"""Abstention: returns the majority answer only if the samples agree enough.

    agreement    the share of all samples that give the winning answer
    entropy      1 - H / log k, with H the entropy in nats of the samples' answers; an unreadable sample counts as an answer of its own
    clusters     the share of all samples in the largest cluster of the same meaning (`etude.decoding.clusters`), whose first is the answer

An answer needs a confidence of `min_confidence`. The accuracy at each confidence is found on questions with known answers
(`etude.evaluation.calibration`). Identity: `min_confidence` 0 is `majority`, except with `clusters`, which reads no votes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from etude.decoding.clusters import clusters
from etude.decoding.majority import first_majority_answer, majority
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import Confidence
from etude.tasks.votes import vote


def abstain(pool: SamplePool, k: int, confidence: Confidence, min_confidence: float, same: float) -> list[DecodedAnswer]:
    """Answer each question if the samples agree enough; `same` is the cosine from which two answers share a cluster."""
    found = []
    for sure in _largest_clusters(pool, k, same) if confidence == "clusters" else _majorities(pool, k, confidence):
        assert sure.confidence is not None
        if sure.text is None or sure.confidence >= min_confidence:
            found.append(sure)
        else:
            found.append(DecodedAnswer(None, confidence=sure.confidence, notes=(f"its samples agree by {sure.confidence:.2f}",)))
    return found


def _majorities(pool: SamplePool, k: int, confidence: Confidence) -> list[DecodedAnswer]:
    answers = majority(pool, k)
    if confidence == "agreement":
        return answers
    votes = [[vote(pool.sample(sample).text, task) for sample in own] for task, own in zip(pool.tasks, pool.samples(k), strict=True)]
    return [replace(answer, confidence=vote_agreement(own)) for answer, own in zip(answers, votes, strict=True)]


def _largest_clusters(pool: SamplePool, k: int, same: float) -> list[DecodedAnswer]:
    assert pool.embed is not None
    answers = [[pool.sample(sample) for sample in own] for own in pool.samples(k)]
    numbers = clusters([[answer.text for answer in own] for own in answers], pool.embed, same)
    votes = [[None if number is None else str(number) for number in own] for own in numbers]
    return [first_majority_answer(*both, "no sample says anything") for both in zip(answers, votes, strict=True)]


def vote_agreement(votes: Sequence[str | None]) -> float:
    """Return the agreement of votes: 1 if all are equal, 0 if no two are; a text without a vote differs from all others.

    >>> vote_agreement(["a", "a"]), vote_agreement(["a", None]), vote_agreement(["a", "a", "b", "b"])
    (1.0, 0.0, 0.5)
    """
    counts = Counter((place if each is None else each) for place, each in enumerate(votes))
    entropy = -sum(count / len(votes) * math.log(count / len(votes)) for count in counts.values())
    return float(votes[0] is not None) if len(votes) < 2 else round(1 - entropy / math.log(len(votes)), 12)
