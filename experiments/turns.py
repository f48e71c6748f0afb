"""Let peers answer the same requests by turns, so that a machine whose speed drifts favours none; reduce the rounds to ratios."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from experiments.peer import Running

OURS = "etude"

Answers = dict[str, list[dict[str, Any]]]


def by_turns(running: Mapping[str, Running], requests: Sequence[Mapping[str, Any]], tokens: int) -> Answers:
    """Return each peer's answers to all requests but the first, which warms up; the order of the peers changes with every request.

    Raises `RuntimeError` for an answer of another number of `tokens`.
    """
    names = list(running)
    answers: Answers = {name: [] for name in names}
    for number, request in enumerate(requests):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            answer = running[name].ask(dict(request))
            if answer["tokens"] != tokens:
                raise RuntimeError(f"{name} sampled {answer['tokens']} tokens of {tokens}")
            if number > 0:
                answers[name].append(answer)
    return answers


def seconds_of(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    return [answer["seconds"] for answer in answers]


def ratios(answers: Answers, ours: str) -> dict[str, dict[str, float]]:
    """Divide each other peer's seconds by ours, paired within a round."""
    own = seconds_of(answers[ours])
    others = {name: seconds_of(found) for name, found in answers.items() if name != ours}
    return {name: spread([theirs / mine for theirs, mine in zip(theirs_each, own, strict=True)]) for name, theirs_each in others.items()}


def peaks(answers: Answers) -> dict[str, int]:
    """Return the most memory that each peer took, in bytes."""
    return {name: max(answer["peak_bytes"] for answer in found) for name, found in answers.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}
