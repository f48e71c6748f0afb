"""What a text votes for: its final answer, written so that equal answers are equal texts; and how votes come out.

Nothing here knows what is right, so that attempts at a task without a gold answer can be compared with each other.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from etude.tasks.answers import normalised, parse_list, stated_answer, voted_answer
from etude.tasks.choices import choices_of, read_choice
from etude.tasks.numbers import find_numbers
from etude.tasks.task import Task
from etude.tasks.verifiers import read_number


def vote(text: str, task: Task) -> str | None:
    """The answer that a text gives, where the task's verifier would look for it, or None where it gives none.

    Numbers are compared by value, choices by letter, lists by their items, everything else, expressions too, as text without case, spaces
    and punctuation.

    >>> vote("3 + 4 = 7.0", Task("3 + 4?", verifier="numeric")), vote("[1.0, '2']", Task("Sort: 2, 1")), vote("", Task("?"))
    ('7', "['1', '2']", None)
    """
    if task.verifier == "numeric":
        number, _ = read_number(text)
        return None if number is None else str(number)
    if task.verifier == "choice":
        return read_choice(text, choices_of(task))
    items = parse_list(stated_answer(text))
    return (voted_answer(text) if items is None else _listed(items) or voted_answer(text)) or None


def _listed(items: list[object]) -> str | None:
    """The items as one text; None where one is a number of more digits than Python writes."""
    try:
        return str([_item(item) for item in items])
    except ValueError:
        return None


def _item(item: object) -> str:
    """An item of a list: a number by its value, whether it is quoted or not."""
    text = normalised(str(item))
    numbers = find_numbers(text) if len(text) <= 400 else []
    is_number = len(numbers) == 1 and (numbers[0].start, numbers[0].end) == (0, len(text))
    return str(numbers[0]) if is_number else text


@dataclass(frozen=True)
class Tally:
    """The votes of some texts; a text without an answer votes for none, and counts among all."""

    counts: Counter[str]
    texts: int

    @staticmethod
    def of(votes: Sequence[str | None]) -> "Tally":
        return Tally(Counter(each for each in votes if each is not None), len(votes))

    @property
    def winner(self) -> str | None:
        """The answer of most texts, of several the one that came first; None without a vote."""
        return max(self.counts, key=self.counts.__getitem__, default=None)

    def share(self, answer: str | None) -> float:
        """Of all texts, those with this answer.

        >>> Tally.of(["7", "8", "7", None]).share("7")
        0.5
        """
        return 0.0 if answer is None else self.counts[answer] / self.texts
