"""What the model itself is told of an answer: what was read in it and that it is not right, never what is right.

Words are made of what was read in the answer. Whatever the gold answer is, they are the same, but for whether the answer has its form; a
verdict's message, for people, may name it. What a verifier of your own puts into `Verdict.words` is told as it stands.
"""

from collections.abc import Sequence
from itertools import pairwise

from etude.rewards.verdict import Verdict

NOT_RIGHT = "That is not right."
NOT_FULLY_RIGHT = "That is not fully right."
NOT_CHECKED = "That could not be checked."
_LONGEST = 60


def read_as(answer: str) -> str:
    """Of an answer that was read, and is wrong.

    >>> read_as("12")
    'I read 12 as your answer, and it is not right.'
    """
    return f"I read {answer} as your answer, and it is not right."


def of_another_form(answer: str) -> str:
    """Of an answer that can't be right, since it is no number, list or word where the question asks for one."""
    if not answer:
        return "I found no answer."
    return f"I read {quoted(answer)} as your answer, and it does not have the form that the question asks for."


def words_of(verdict: Verdict, steps: Sequence[str] = ()) -> str:
    """What is told of an attempt by its verdict; with the texts of its `steps`, where feedback valued them, also behind which of them the
    expected value falls most.

    >>> words_of(Verdict(0.0, step_values=(0.5, 0.75, 0.25, 0.0)), ["2 + 2 = 4", "4 * 3 = 13", "13"])
    "That is not right. It seems to go wrong in step 2: '4 * 3 = 13'"
    """
    said = verdict.words or (NOT_CHECKED if verdict.score is None else NOT_FULLY_RIGHT if verdict.score > 0 else NOT_RIGHT)
    falls = [before - behind for before, behind in pairwise(verdict.step_values)]
    if falls and len(falls) == len(steps) and max(falls) > 0:
        worst = falls.index(max(falls))
        said = f"{said} It seems to go wrong in step {worst + 1}: {quoted(steps[worst].strip())}"
    return said.encode("utf-8", "replace").decode()  # of a lone surrogate no token can be made


def quoted(text: str) -> str:
    """A text as it can stand in a sentence: in quotation marks, on one line, not too long."""
    return repr(shortened(text))


def shortened(text: str, longest: int = _LONGEST) -> str:
    """The text, cut to at most so many characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
