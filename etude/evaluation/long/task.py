"""One long text and what is asked of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from etude.evaluation.truthful import rouge_l
from etude.tasks.aliases import words_said


@dataclass(frozen=True)
class LongTask:
    """The question comes behind the text, so that a text can be read without knowing it."""

    kind: str
    context: str
    question: str
    begin: str
    """How the answer begins, which the model goes on with; "" leaves it to the model."""
    answers: tuple[str, ...]
    """All of which are to be said; of a task by likeness, references of which one is enough."""
    by_likeness: bool = False
    """Whether an answer is measured by ROUGE-L, not by what it says word for word."""
    depth: float | None = None
    """Where in the text the answer lies, from 0 to 1; of several the first."""

    def score(self, text: str) -> float:
        """The share of the answers that the text says, in [0, 1]; by likeness the largest ROUGE-L with any."""
        if self.by_likeness:
            return max(rouge_l(words_said(text), words_said(answer)) for answer in self.answers)
        return sum(contains_answer(text, answer) for answer in self.answers) / len(self.answers)


def contains_answer(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text, in a row.

    >>> says("It is 4231.", "4231"), says("It is 42310.", "4231"), says("In the big park", "the park")
    (True, False, False)
    """
    words, wanted = words_said(text), words_said(answer)
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1))


def join_with_and(items: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
