"""Majority votes: reduces answers to comparable texts and counts them.

Gold answers are not used, so attempts at a task without one can be compared.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from etude.tasks.answers import comparable_answer, normalise, parse_list, stated_answer
from etude.tasks.choices import choices_of, read_choice
from etude.tasks.number_answers import compute_number, read_number
from etude.tasks.numbers import find_numbers
from etude.tasks.task import Task


def vote(text: str, task: Task) -> str | None:
    """Return the answer that a text votes for, normalised so that equal answers are equal texts; None without an answer.

    The answer is read like by the task's verifier. Numbers are compared by value, choices by letter, lists by their items, everything else
    (expressions too) as text without case, spaces and punctuation.

    >>> vote("3 + 4 = 7.0", Task("3 + 4?", verifier="numeric")), vote("[1.0, '2']", Task("Sort: 2, 1")), vote("", Task("?"))
    ('7', "['1', '2']", None)
    """
    if task.verifier in ("numeric", "calculator"):
        number, _ = (read_number if task.verifier == "numeric" else compute_number)(text)
        return None if number is None else str(number)
    if task.verifier == "choice":
        return read_choice(text, choices_of(task))
    items = parse_list(stated_answer(text))
    return (comparable_answer(text) if items is None else _listed(items) or comparable_answer(text)) or None


def _listed(items: list[object]) -> str | None:
    """Convert the items to one text; None if one is a number of more digits than Python writes."""
    try:
        return str([_item(item) for item in items])
    except ValueError:
        return None


def _item(item: object) -> str:
    """Convert an item of a list to text: a number by its value, quoted or not."""
    text = normalise(str(item))
    numbers = find_numbers(text) if len(text) <= 400 else []
    is_number = len(numbers) == 1 and (numbers[0].start, numbers[0].end) == (0, len(text))
    return str(numbers[0]) if is_number else text


def majority(answers: Sequence[str | None], weights: Sequence[float | Fraction] | None = None) -> int:
    """Return the index of the first most frequent (or heaviest) answer; None is no answer. 0 if there is none.

    >>> majority(["7", "8", None, None, "7"]), majority([None, None])
    (0, 0)
    >>> majority(["7", "8", "7"], [0.2, 0.9, 0.4])
    1
    """
    votes = dict[str, float | Fraction]()
    for answer, weight in zip(answers, weights or [1] * len(answers), strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0) + weight
    return answers.index(max(votes, key=votes.__getitem__)) if votes else 0


@dataclass(frozen=True)
class Tally:
    """The votes of several texts; a text without an answer has no vote but counts in the total."""

    counts: Counter[str]
    texts: int

    @staticmethod
    def of(votes: Sequence[str | None]) -> "Tally":
        """Count votes; None is a text without an answer."""
        return Tally(Counter(each for each in votes if each is not None), len(votes))

    @property
    def winner(self) -> str | None:
        """The answer with most votes, the first of equals; None without a vote."""
        return max(self.counts, key=self.counts.__getitem__, default=None)

    def share(self, answer: str | None) -> float:
        """Return the share of all texts that have this answer.

        >>> Tally.of(["7", "8", "7", None]).share("7")
        0.5
        """
        return 0.0 if answer is None else self.counts[answer] / self.texts
