"""Does a model know an answer and say another? What it finds likely, what it says in k attempts, what it says at once, and from where on.

    likelihood   the right answer is likelier, a byte, than every wrong one; of several names of the right one, the likeliest of them
    chance       the same with another question's right answer in its place: what the number of names, and being an answer at all, are worth
    pass@k       some of k samples is right
    greedy       what it says at once is right
    unsaid       some sample is right and the greedy answer is not
    leads        after which layers the right answer is likelier than every wrong one, by the logit lens. Early layers find hardly a token
                 likelier than another, so that an answer of few tokens for its bytes leads whether it is known or not: only what another
                 question's right answer does less often after the same layer tells of knowledge
    lost         it led after half of the layers at least, and does not at the end; to be set against another question's, too

A method of decoding closes (its accuracy - greedy) / (pass@k - greedy) of the gap between what is in the samples and what is said at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.evaluation.statistics import paired_test, wilson_interval


@dataclass(frozen=True)
class QuestionFacts:
    """What was found of a question."""

    leads: tuple[bool, ...]
    """After each layer, from the embeddings on, whether the right answer leads; the last one is the model itself."""
    elsewhere: tuple[bool, ...]
    """The same of another question's right answer."""
    right_samples: int
    greedy: bool

    @property
    def leads_from(self) -> int | None:
        """The layer from which on it leads to the end; None where it does not lead there."""
        return _first(self.leads)


def _first(cases: Sequence[bool]) -> int | None:
    """From where on all are so."""
    behind = [place for place, is_so in enumerate(cases) if not is_so]
    first = behind[-1] + 1 if behind else 0
    return first if first < len(cases) else None


def _is_lost(leads: Sequence[bool]) -> bool:
    return not leads[-1] and 2 * sum(leads) >= len(leads)


def measure_gap(found: Sequence[QuestionFacts], k: int) -> dict[str, Any]:
    """The numbers of all questions; shares with their intervals (95 %). `leads_from`: the layer from which on right answers lead more often
    than another question's, to the end (paired, lower end above 0: the later the fewer the questions); None where they do not at the end.
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
    """How much of the gap a method closes; None where there is none.

    >>> closed(0.3, {"greedy": 0.2, "pass_at_k": 0.6})
    0.25
    """
    width = row["pass_at_k"] - row["greedy"]
    return round((accuracy - row["greedy"]) / width, 12) if width > 0 else None
