"""A long-context task: a text, a question and its answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from etude.evaluation.truthful import rouge_l
from etude.tasks.aliases import plain_words


@dataclass(frozen=True)
class LongTask:
    """A long text followed by a question, so that the text can be prefilled without knowing the question."""

    kind: str
    context: str
    question: str
    begin: str
    """The beginning of the answer, which the model continues; "" leaves it to the model."""
    answers: tuple[str, ...]
    """The required answers; with `by_likeness`, references of which the closest counts."""
    by_likeness: bool = False
    """Score by ROUGE-L instead of exact words."""
    depth: float | None = None
    """Position of the (first) answer in the text, from 0 to 1."""

    def score(self, text: str) -> float:
        """Return the share of the answers that the text contains, in [0, 1]; by likeness the largest ROUGE-L with any."""
        if self.by_likeness:
            return max(rouge_l(plain_words(text), plain_words(answer)) for answer in self.answers)
        return sum(contains_answer(text, answer) for answer in self.answers) / len(self.answers)


def contains_answer(text: str, answer: str) -> bool:
    """Tell whether the words of an answer occur consecutively in a text.

    >>> contains_answer("It is 4231.", "4231"), contains_answer("It is 42310.", "4231"), contains_answer("In the big park", "the park")
    (True, False, False)
    """
    words, wanted = plain_words(text), plain_words(answer)
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words) - len(wanted) + 1))


def join_with_and(items: Sequence[str]) -> str:
    """Join items with commas and a final "and".

    >>> join_with_and(["a"]), join_with_and(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
