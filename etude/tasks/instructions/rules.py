"""Kinds of rules for short answers: how each is asked, and the function that checks it.

The idea is that of IFEval (Zhou et al. 2023, arXiv 2311.07911, section 2): instructions that a program can verify. Departure: these rules
fit answers of one line, where most of IFEval's are about long texts; `etude.tasks.instructions.ifeval` has those under their public names.

Rules of one `group` are about the same property of a text and are never asked together. `RULES` names all kinds, `TRAINING` and `HELD_OUT`
those of the two sets by name.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from etude.tasks.instructions.text import is_enclosed, lines, lower_words, num_dashed, num_sentences, words
from etude.tasks.instructions.vocabulary import NAMES, OPENINGS, PHRASES, WORDS

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """A kind of rule."""

    group: str
    """The property that the rule is about."""
    asked: tuple[str, ...]
    """Ways to ask for it: format strings over the arguments."""
    is_followed: Callable[..., bool]
    """(stripped answer, **arguments) -> whether the answer follows the rule."""
    sample: Callable[[Random], Arguments] = lambda _: {}
    """Sample the arguments."""


def _number(low: int, high: int) -> Callable[[Random], Arguments]:
    return lambda random: {"n": random.randint(low, high)}


def _word(random: Random) -> Arguments:
    return {"word": random.choice(WORDS)}


def _phrase(random: Random) -> Arguments:
    return {"phrase": random.choice(PHRASES)}


def _two_words(random: Random) -> Arguments:
    first, second = random.sample(WORDS, 2)
    return {"first": first, "second": second}


def _has_exact_words(text: str, n: int) -> bool:
    return len(words(text)) == n


def _has_at_most_words(text: str, n: int) -> bool:
    return 0 < len(words(text)) <= n


def _has_at_least_words(text: str, n: int) -> bool:
    return len(words(text)) >= n


def _has_words_between(text: str, low: int, high: int) -> bool:
    return low <= len(words(text)) <= high


def _begins_with_word(text: str, word: str) -> bool:
    return lower_words(text)[:1] == [word.lower()]


def _begins_with_words(text: str, phrase: str) -> bool:
    asked = lower_words(phrase)
    return lower_words(text)[: len(asked)] == asked


def _begins_with_letter(text: str, letter: str) -> bool:
    return "".join(lower_words(text))[:1] == letter.lower()


def _ends_with_word(text: str, word: str) -> bool:
    return lower_words(text)[-1:] == [word.lower()]


def _ends_with_mark(text: str, mark: str) -> bool:
    return text.endswith(mark) and bool(words(text))


def _ends_with_letter(text: str, letter: str) -> bool:
    return "".join(lower_words(text))[-1:] == letter.lower()


def _is_lower(text: str) -> bool:
    return text == text.lower() and any(letter.isalpha() for letter in text)


def _is_upper(text: str) -> bool:
    return text == text.upper() and any(letter.isalpha() for letter in text)


def _is_title_case(text: str) -> bool:
    return bool(words(text)) and all(not word[0].isalpha() or word[0].isupper() for word in words(text))


def _contains(text: str, word: str) -> bool:
    return word.lower() in lower_words(text)


def _contains_phrase(text: str, phrase: str) -> bool:
    return f" {' '.join(lower_words(phrase))} " in f" {' '.join(lower_words(text))} "


def _contains_both(text: str, first: str, second: str) -> bool:
    return {first.lower(), second.lower()} <= set(lower_words(text))


def _contains_in_order(text: str, first: str, second: str) -> bool:
    found = lower_words(text)
    return first in found and second in found[found.index(first) + 1 :]


def _contains_times(text: str, word: str, n: int) -> bool:
    return lower_words(text).count(word.lower()) == n


def _lacks_letter(text: str, letter: str) -> bool:
    return letter not in text.lower() and bool(words(text))


def _lacks_word(text: str, word: str) -> bool:
    return word not in lower_words(text) and bool(words(text))


def _has_no_comma(text: str) -> bool:
    return "," not in text and bool(words(text))


def _has_number(text: str, number: int) -> bool:
    return re.search(rf"(?<!\d)(?<!\d[.,]){number}(?!\d)(?![.,]\d)", text) is not None


def _has_commas(text: str, n: int) -> bool:
    return text.count(",") == n and bool(words(text))


def _has_sentences(text: str, n: int = 1) -> bool:
    return num_sentences(text) == n


def _is_question(text: str) -> bool:
    return text.rstrip("\"\u201d'\u2019").endswith("?") and bool(words(text))


def _has_dashed_items(text: str, n: int) -> bool:
    return num_dashed(text) == n == len(lines(text))


def _has_numbered_items(text: str, n: int) -> bool:
    return [line.split(maxsplit=1)[0] for line in lines(text)] == [f"{number}." for number in range(1, n + 1)]


def _has_lines(text: str, n: int) -> bool:
    return len(lines(text)) == n


def _is_list_of(text: str, n: int) -> bool:
    parts = [part.strip() for part in text.rstrip(".").split(",")]
    return len(parts) == n and all(words(part) for part in parts)


def _is_quoted(text: str) -> bool:
    return is_enclosed(text, '"') or is_enclosed(text, "\u201c")


def _is_in_brackets(text: str) -> bool:
    return is_enclosed(text, "[")


def _letter(letters: str) -> Callable[[Random], Arguments]:
    return lambda random: {"letter": random.choice(letters)}


def _range(random: Random) -> Arguments:
    low = random.randint(5, 10)
    return {"low": low, "high": low + random.randint(1, 3)}


def _word_and_count(random: Random) -> Arguments:
    return {"word": random.choice(WORDS), "n": 2}


RULES = {
    # length
    "exact_words": Rule(
        "length",
        ("Use exactly {n} words.", "Answer in exactly {n} words.", "It must have exactly {n} words.", "Make it {n} words long."),
        _has_exact_words,
        _number(5, 10),
    ),
    "at_most_words": Rule(
        "length",
        ("Use at most {n} words.", "No more than {n} words.", "Keep it to {n} words or fewer."),
        _has_at_most_words,
        _number(8, 16),
    ),
    "at_least_words": Rule(
        "length",
        ("Use at least {n} words.", "Write {n} words or more."),
        _has_at_least_words,
        _number(8, 14),
    ),
    "words_between": Rule(
        "length",
        ("Use between {low} and {high} words.", "Write {low} to {high} words."),
        _has_words_between,
        _range,
    ),
    "one_sentence": Rule("sentences", ("Write exactly one sentence.", "Use a single sentence."), _has_sentences),
    "sentences": Rule("sentences", ("Write exactly {n} sentences.", "Use {n} sentences."), _has_sentences, _number(2, 3)),
    "lines": Rule("sentences", ("Write exactly {n} lines.", "Put it on {n} lines."), _has_lines, _number(2, 4)),
    # form
    "dashed_items": Rule(
        "sentences",
        (
            "Give a list of exactly {n} items, each on a line of its own that begins with a dash.",
            'Write {n} lines, each beginning with "- ".',
        ),
        _has_dashed_items,
        _number(2, 4),
    ),
    "numbered_items": Rule(
        "sentences",
        ("Give a numbered list of exactly {n} items.", "Number your {n} points 1., 2. and so on."),
        _has_numbered_items,
        _number(2, 4),
    ),
    "comma_list": Rule(
        "sentences",
        ("Give exactly {n} things, separated by commas.", "Answer with {n} items separated by commas, nothing else."),
        _is_list_of,
        _number(3, 5),
    ),
    "quoted": Rule(
        "form",
        ("Put your whole answer in double quotation marks.", "Wrap the whole answer in double quotes."),
        _is_quoted,
    ),
    "brackets": Rule("form", ("Put your whole answer in square brackets.", "Wrap the whole answer in [square brackets]."), _is_in_brackets),
    # beginning and end
    "begin_word": Rule(
        "beginning",
        ('Begin with the word "{word}".', 'Start with "{word}".', 'The first word must be "{word}".'),
        _begins_with_word,
        lambda random: {"word": random.choice(OPENINGS)},
    ),
    "begin_words": Rule(
        "beginning",
        ('Begin with the words "{phrase}".', 'The first words must be "{phrase}".'),
        _begins_with_words,
        _phrase,
    ),
    "begin_letter": Rule(
        "beginning",
        ("Begin with the letter {letter}.", "The first letter must be {letter}."),
        _begins_with_letter,
        _letter("ABCDEFGHLMNOPRSTW"),
    ),
    "end_word": Rule(
        "end",
        ('End with the word "{word}".', 'The last word must be "{word}".', 'Finish with "{word}".'),
        _ends_with_word,
        _word,
    ),
    "end_mark": Rule(
        "end",
        ('End with "{mark}".', 'The last character must be "{mark}".'),
        _ends_with_mark,
        lambda random: {"mark": random.choice((".", "!", "?"))},
    ),
    "sign": Rule(
        "end",
        ('Sign it with the name "{name}" at the end.', 'The name "{name}" must come last.'),
        lambda text, name: _ends_with_word(text, name),
        lambda random: {"name": random.choice(NAMES)},
    ),
    "question": Rule("end", ("Write it as a question.", "It must be a question."), _is_question),
    "end_letter": Rule(
        "end", ("The last letter must be {letter}.", "End with the letter {letter}."), _ends_with_letter, _letter("DEGLNRSTY")
    ),
    # case
    "lowercase": Rule("case", ("Write in lowercase letters only.", "Use no capital letters.", "All in lowercase, please."), _is_lower),
    "uppercase": Rule("case", ("Write in CAPITAL LETTERS only.", "Use only capital letters."), _is_upper),
    "title_case": Rule("case", ("Begin Every Word With a Capital Letter.", "Capitalize each word."), _is_title_case),
    # words
    "include_word": Rule(
        "word",
        ('Use the word "{word}".', 'Include the word "{word}".', 'The word "{word}" must be in it.', 'Mention "{word}".'),
        _contains,
        _word,
    ),
    "two_words": Rule(
        "word",
        ('Use the words "{first}" and "{second}".', 'Both "{first}" and "{second}" must be in it.'),
        _contains_both,
        _two_words,
    ),
    "phrase": Rule("word", ('Use the phrase "{phrase}".', 'The words "{phrase}" must be in it.'), _contains_phrase, _phrase),
    "words_in_order": Rule(
        "word",
        ('Use the word "{first}" and, after it, the word "{second}".', 'Mention "{first}" before "{second}".'),
        _contains_in_order,
        _two_words,
    ),
    "word_times": Rule("word", ('Use the word "{word}" exactly twice.', 'Say "{word}" two times.'), _contains_times, _word_and_count),
    # what to avoid
    "avoid_letter": Rule(
        "avoid",
        ('Do not use the letter "{letter}".', 'Avoid the letter "{letter}".', 'No word may contain the letter "{letter}".'),
        _lacks_letter,
        _letter("bcfgjkmpquvwxyz"),
    ),
    "avoid_word": Rule(
        "avoid",
        ('Do not use the word "{word}".', 'Avoid the word "{word}".'),
        _lacks_word,
        lambda random: {"word": random.choice(("the", "a", "and", "is", "of", "to", "in"))},
    ),
    # marks
    "no_comma": Rule("comma", ("Use no commas.", "Do not use commas."), _has_no_comma),
    "commas": Rule("comma", ("Use exactly {n} commas.", "It must have {n} commas."), _has_commas, _number(2, 3)),
    "number": Rule(
        "number",
        ("Mention the number {number}.", "The number {number} must be in it, in digits."),
        _has_number,
        lambda random: {"number": random.randint(2, 99)},
    ),
}
"""All kinds of rules."""

TRAINING = (
    *("at_most_words", "one_sentence", "quoted", "begin_word", "end_word", "end_mark", "include_word", "two_words", "word_times", "number"),
    *("avoid_letter", "no_comma"),
)
"""Kinds that training asks for."""
HELD_OUT = ("words_between", "begin_words", "sign", "question", "phrase", "words_in_order", "avoid_word")
"""Kinds that training never asks for, to measure transfer. Each has a relative among those, chosen by meaning: a length between two numbers
beside a length up to one, a phrase where training has a word, a name as the last word, a question beside the mark at the end, an order of
two words beside two words, a forbidden word beside a forbidden letter."""
