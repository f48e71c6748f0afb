"""Does a model know an answer and say another? What it finds likely, what it says in k attempts, what it says at once, and from where on.

    likelihood   the right answer is likelier, a byte, than every wrong one; of several names of the right one, the likeliest of them
    chance       the same with another question's right answer in its place: what the number of names, and being an answer at all, are worth
    pass@k       some of k samples is right
    greedy       what it says at once is right
    unsaid       some sample is right and the greedy answer is not
    leads        after which layers the right answer is likelier than every wrong one, by the logit lens

A method of decoding closes (its accuracy - greedy) / (pass@k - greedy) of the gap between what is in the samples and what is said at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from etude.evaluation.statistics import wilson_interval


@dataclass(frozen=True)
class Facts:
    """What was found of a question."""

    leads: tuple[bool, ...]
    """After each layer, from the embeddings on, whether the right answer leads; the last one is the model itself."""
    chance: bool
    """Whether another question's right answer leads at the end."""
    right_samples: int
    greedy: bool

    @property
    def leads_from(self) -> int | None:
        """The layer from which on it leads to the end; None where it does not lead there."""
        behind = [layer for layer, leads in enumerate(self.leads) if not leads]
        first = behind[-1] + 1 if behind else 0
        return first if first < len(self.leads) else None

    @property
    def is_lost(self) -> bool:
        """Whether it led for half of the layers at least, and does not at the end."""
        return not self.leads[-1] and 2 * sum(self.leads) >= len(self.leads)


def gap(found: Sequence[Facts], k: int) -> dict[str, Any]:
    """The numbers of all questions; shares with their intervals (95 %)."""
    n = len(found)
    row: dict[str, Any] = {"n": n, "k": k}
    shares = {
        "likelihood": [each.leads[-1] for each in found],
        "chance": [each.chance for each in found],
        "pass_at_k": [each.right_samples > 0 for each in found],
        "greedy": [each.greedy for each in found],
        "unsaid": [each.right_samples > 0 and not each.greedy for each in found],
        "unsaid_likelihood": [each.leads[-1] and not each.greedy for each in found],
        "lost": [each.is_lost for each in found],
    }
    for name, cases in shares.items():
        row[name] = sum(cases) / n
        row[f"{name}_low"], row[f"{name}_high"] = wilson_interval(sum(cases), n)
    row["sampled"] = sum(each.right_samples for each in found) / (n * k)
    layers = range(len(found[0].leads))
    row["leads_after"] = [sum(each.leads[layer] for each in found) / n for layer in layers]
    firsts = [each.leads_from for each in found if each.leads_from is not None]
    row["leads_from"] = median(firsts) if firsts else None
    return row


def closed(accuracy: float, row: dict[str, Any]) -> float | None:
    """How much of the gap a method closes; None where there is none.

    >>> closed(0.3, {"greedy": 0.2, "pass_at_k": 0.6})
    0.25
    """
    width = row["pass_at_k"] - row["greedy"]
    return round((accuracy - row["greedy"]) / width, 12) if width > 0 else None
