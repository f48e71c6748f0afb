"""Textual feedback for the model: the answer that was read and that it is wrong, never the correct answer.

The words use only the answer that was read. They do not depend on the gold answer, except for its form; a reward's message, for people, may
name it. `Reward.words` of a user's own verifier are passed on unchanged.
"""

from collections.abc import Sequence
from itertools import pairwise

from etude.tasks.reward import Reward

NOT_RIGHT = "That is not right."
NOT_FULLY_RIGHT = "That is not fully right."
NOT_CHECKED = "That could not be checked."
_LONGEST = 60


def read_as(answer: str) -> str:
    """Write the feedback on an answer that was read and is wrong.

    >>> read_as("12")
    'I read 12 as your answer, and it is not right.'
    """
    return f"I read {answer} as your answer, and it is not right."


def of_another_form(answer: str) -> str:
    """Write the feedback on an answer of the wrong form: not the number, list or word that the question asks for."""
    if not answer:
        return "I found no answer."
    return f"I read {quoted(answer)} as your answer, and it does not have the form that the question asks for."


def words_of(reward: Reward, steps: Sequence[str] = ()) -> str:
    """Write the feedback on an attempt from its reward; with `steps`, also name the step after which the expected reward falls most.

    `steps` are the texts of the attempt's steps, if the reward has step values.

    >>> words_of(Reward(0.0, step_values=(0.5, 0.75, 0.25, 0.0)), ["2 + 2 = 4", "4 * 3 = 13", "13"])
    "That is not right. It seems to go wrong in step 2: '4 * 3 = 13'"
    """
    said = reward.words or (NOT_CHECKED if reward.score is None else NOT_FULLY_RIGHT if reward.score > 0 else NOT_RIGHT)
    falls = [before - after for before, after in pairwise(reward.step_values)]
    if falls and len(falls) == len(steps) and max(falls) > 0:
        worst = falls.index(max(falls))
        said = f"{said} It seems to go wrong in step {worst + 1}: {quoted(steps[worst].strip())}"
    return said.encode("utf-8", "replace").decode()  # a lone surrogate can't be tokenized


def quoted(text: str) -> str:
    """Quote a text for use in a sentence: in quotation marks, on one line, shortened."""
    return repr(shortened(text))


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Shorten a text to at most `longest` characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
