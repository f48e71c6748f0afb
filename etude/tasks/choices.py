"""Multiple choice: writes choices into a question, and reads which choice a text names."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from etude.tasks.answers import final_answer, last_characters, marked_answer, normalise
from etude.tasks.task import Task

_LETTER = re.compile(r"\W{0,3}(?:(?:option|choice) )?\(?([A-Za-z])(?:\)|[.:]|$)(.*)", re.IGNORECASE | re.DOTALL)
_ANOTHER_LETTER = re.compile(r"(?<!\w)(?:\([A-Za-z]\)|[B-HJ-Z])(?!\w)")
_CAPITAL = re.compile(r"\W{0,3}(?:(?i:option|choice) )?\(?([A-Z])(?![A-Za-z0-9_'\u2019-])(\W{0,3}[\s,;])(.*)", re.DOTALL)
_ANY_LETTER = re.compile(r"(?<!\w)(?:\([a-z]\)|[A-HJ-Z])(?!\w)")
_ALTERNATIVE = re.compile(r"(?:or|and|nor)\b", re.IGNORECASE)
_NO_NOUN = re.compile(r"(?:because|since|as|which)\b", re.IGNORECASE)


def choices_of(task: Task) -> list[str]:
    """Return the texts of the choices in a task's metadata, converted to text; an empty list without any.

    >>> choices_of(Task("2 + 2?", "B", metadata={"choices": [3, 4]})), choices_of(Task("?", metadata={"choices": None}))
    (['3', '4'], [])
    """
    listed = task.metadata.get("choices")
    return [str(text) for text in listed] if isinstance(listed, (list, tuple)) else []


def show_choices(question: str, choices: Sequence[str]) -> str:
    """Append lettered choices to a question, one per line.

    >>> show_choices("Which is a fruit?", ["a stone", "a pear"])
    'Which is a fruit?\\nA. a stone\\nB. a pear'
    """
    lines = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return "\n".join([question.rstrip(), *lines])


def remove_choices(shown: str, choices: Sequence[str]) -> str:
    """Return the question without the choices that `show_choices` appended.

    >>> remove_choices(show_choices("Which is a fruit?", ["a stone", "a pear"]), ["a stone", "a pear"])
    'Which is a fruit?'
    """
    return shown.removesuffix(show_choices("", choices))


def read_choice(text: str, choices: Sequence[str] = ()) -> str | None:
    """Return the capital letter of the only choice that a text names, or None if it names none or several.

    A choice is named by its letter (`B`, `(B)`, `B.`, `option B`, `B. the text`) or by its text. The text after the last answer marker
    counts, or else the whole text; after a marker, prose may follow a capital (`the answer is B because pears are fruit`). Case and
    punctuation matter only if choices have no other difference (`TT`, `Tt`). Without `choices`, every letter from A to Z is a choice.

    >>> read_choice("The answer is (B)."), read_choice("A or B"), read_choice("a pear", ["a stone", "a pear"])
    ('B', None, 'B')
    """
    answer = final_answer(text, gold="B").strip("*`'\" ")
    texts = [normalise(choice) for choice in choices]
    whole = normalise(answer)
    match = _LETTER.fullmatch(answer)
    if whole in texts and (len(whole) > 1 or match is None):
        return _letter_of_text(answer, whole, choices, texts)
    letter = _bare_letter(match[1].upper(), match[2].strip(), texts) if match is not None else None
    if letter is None and marked_answer(last_characters(text)) is not None:
        return _letter_before_prose(answer, texts)
    return letter


def _letter_of_text(answer: str, whole: str, choices: Sequence[str], texts: Sequence[str]) -> str | None:
    """Return the letter of the choice with exactly this text, or else of the only choice with the same normalised text."""
    exactly = [place for place, choice in enumerate(choices) if choice.strip() == answer]
    places = exactly or [place for place, text in enumerate(texts) if text == whole]
    is_one = len({choices[place].strip() for place in places}) == 1
    return ascii_uppercase[places[0]] if is_one and places[0] < 26 else None


def _bare_letter(letter: str, rest: str, texts: Sequence[str]) -> str | None:
    """Return the letter if nothing or its choice's text follows it; without texts, if no other letter follows."""
    if not texts:
        return None if _ANOTHER_LETTER.search(rest) else letter
    position = ascii_uppercase.index(letter)
    if position >= len(texts) or (rest and normalise(rest) not in ("", ".", ")", texts[position])):
        return None
    return letter


def _letter_before_prose(answer: str, texts: Sequence[str]) -> str | None:
    """Return the capital at the beginning of an answer that is followed by prose which names no other choice.

    `A` and `I` are words too: before a space they are letters only if no noun or verb can follow (`A because`).
    """
    match = _CAPITAL.fullmatch(answer)
    if match is None:
        return None
    letter, between, rest = match[1], match[2].strip(), match[3].strip()
    position = ascii_uppercase.index(letter)
    is_a_word = letter in "AI" and not between and not _NO_NOUN.match(rest)
    begins_a_text = any(normalise(answer).startswith(text) for text in texts if len(text) > 1)
    names_another = normalise(rest) in (text for index, text in enumerate(texts) if index != position)
    if is_a_word or begins_a_text or names_another or _ANY_LETTER.search(rest) or _ALTERNATIVE.match(rest):
        return None
    return letter if not texts or position < len(texts) else None
