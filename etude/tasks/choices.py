"""Multiple choice: how a task shows its choices, and which choice a text names."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from etude.tasks.answers import final_answer, normalised

_LETTER = re.compile(r"\W{0,3}(?:(?:option|choice) )?\(?([A-Za-z])(?:\)|[.:]|$)(.*)", re.IGNORECASE | re.DOTALL)
_ANOTHER_LETTER = re.compile(r"(?<!\w)(?:\([A-Za-z]\)|[B-HJ-Z])(?!\w)")


def show_choices(question: str, choices: Sequence[str]) -> str:
    """A question with its choices, one to a line and lettered.

    >>> show_choices("Which is a fruit?", ["a stone", "a pear"])
    'Which is a fruit?\\nA. a stone\\nB. a pear'
    """
    lines = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return "\n".join([question.rstrip(), *lines])


def read_choice(text: str, choices: Sequence[str] = ()) -> str | None:
    """The capital letter of the one choice that a text names, or None where it names none or several.

    A choice is named by its letter (`B`, `(B)`, `B.`, `option B`, `B. the text`) or by its text. What stands behind the last answer marker
    counts, or else the whole text. Without `choices`, any letter from A to Z is one.

    >>> read_choice("The answer is (B)."), read_choice("A or B"), read_choice("a pear", ["a stone", "a pear"])
    ('B', None, 'B')
    """
    answer = final_answer(text, gold="B").strip("*`'\" ")
    texts = [normalised(choice) for choice in choices]
    whole = normalised(answer)
    if whole in texts and len(whole) > 1:
        return ascii_uppercase[texts.index(whole)] if texts.index(whole) < 26 else None
    match = _LETTER.fullmatch(answer)
    if match is None:
        return ascii_uppercase[texts.index(whole)] if whole in texts[:26] else None
    letter, rest = match[1].upper(), match[2].strip()
    if not texts:
        return None if _ANOTHER_LETTER.search(rest) else letter
    position = ascii_uppercase.index(letter)
    if position >= len(texts) or (rest and normalised(rest) not in ("", ".", ")", texts[position])):
        return None
    return letter
