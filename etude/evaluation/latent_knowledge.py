"""Latent knowledge: does a model know answers that it does not give? Compares likelihoods by layer with samples and greedy answers.

    likelihood   the correct answer has a higher log-prob per byte than every wrong one (the likeliest of its names counts)
    chance       the same with another question's correct answer: the effect of the number of names, and of being any answer
    pass@k       at least one of k samples is correct
    greedy       the greedy answer is correct
    unsaid       at least one sample is correct and the greedy answer is not
    leads        after which layers (logit lens) the correct answer has a higher log-prob than every wrong one. In early layers all tokens
                 are about equally likely, so an answer with few tokens per byte leads even if it is unknown. Only the difference from
                 another question's correct answer after the same layer shows knowledge
    lost         it leads after at least half of the layers and not at the end; compare with another question's answer, too

A decoding method closes (its accuracy - greedy) / (pass@k - greedy) of the gap between samples and greedy answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.evaluation.statistics import paired_test, wilson_interval


@dataclass(frozen=True)
class QuestionFacts:
    """The measurements of one question."""

    leads: tuple[bool, ...]
    """Whether the correct answer leads after each layer, beginning with the embeddings; the last entry is the model itself."""
    elsewhere: tuple[bool, ...]
    """The same for another question's correct answer."""
    right_samples: int
    greedy: bool

    @property
    def leads_from(self) -> int | None:
        """Return the layer from which the correct answer leads until the end; None if it does not lead at the end."""
        return _first(self.leads)


def _first(cases: Sequence[bool]) -> int | None:
    """Return the first index from which all cases are true, or None."""
    failures = [place for place, is_so in enumerate(cases) if not is_so]
    first = failures[-1] + 1 if failures else 0
    return first if first < len(cases) else None


def _is_lost(leads: Sequence[bool]) -> bool:
    return not leads[-1] and 2 * sum(leads) >= len(leads)


def measure_gap(found: Sequence[QuestionFacts], k: int) -> dict[str, Any]:
    """Aggregate all questions: shares with their 95 % intervals.

    `leads_from` is the layer from which, until the end, correct answers lead more often than another question's (paired test, lower end
    above 0; fewer questions give a later layer); None if they do not at the end.
    """
    n = len(found)
    row: dict[str, Any] = {"n": n, "k": k}
    shares = {
        "likelihood": [each.leads[-1] for each in found],
        "chance": [each.elsewhere[-1] for each in found],
        "pass_at_k": [each.right_samples > 0 for each in found],
        "greedy": [each.greedy for each in found],
        "unsaid": [each.right_samples > 0 and not each.greedy for each in found],
        "unsaid_likelihood": [each.leads[-1] and not each.greedy for each in found],
        "lost": [_is_lost(each.leads) for each in found],
        "lost_chance": [_is_lost(each.elsewhere) for each in found],
    }
    for name, cases in shares.items():
        row[name] = sum(cases) / n
        row[f"{name}_low"], row[f"{name}_high"] = wilson_interval(sum(cases), n)
    row["sampled"] = sum(each.right_samples for each in found) / (n * k)
    own_LN, other_LN = (list(zip(*cases, strict=True)) for cases in ([each.leads for each in found], [each.elsewhere for each in found]))
    row["leads_after"], row["chance_after"] = ([sum(layer) / n for layer in layers] for layers in (own_LN, other_LN))
    row["leads_from"] = _first([paired_test(other, own).difference_low > 0 for own, other in zip(own_LN, other_LN, strict=True)])
    return row


def gap_closed(accuracy: float, row: dict[str, Any]) -> float | None:
    """Return the share of the gap between greedy and pass@k that a method closes; None if there is no gap.

    >>> gap_closed(0.3, {"greedy": 0.2, "pass_at_k": 0.6})
    0.25
    """
    width = row["pass_at_k"] - row["greedy"]
    return round((accuracy - row["greedy"]) / width, 12) if width > 0 else None
