"""Instruction following: prompts with one rule each that a function can check.

    Name three things that one may see in a forest. Write your answer in lowercase letters only.

The idea is from IFEval (Zhou et al. 2023, arXiv 2311.07911, section 2: instructions that a program can verify). Departure: prompts and
rules were written for etude, so no model was trained on them, and each prompt has one rule. Only the rule counts, not the rest of the
answer; an empty answer follows no rule. Some rules are followed by chance, so compare models instead of absolute shares.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from etude.errors import UserError
from etude.randomness import seed_for
from etude.tasks.instructions.text import NUMBERED, SENTENCE_END

_ITEM = re.compile(r"\s*[-\u2013\u2014]\s+\S")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


@dataclass(frozen=True)
class InstructionRule:
    """An instruction with the function that checks it."""

    asked: str
    """The text after the question, a format string over `argument`."""
    arguments: tuple[str, ...]
    is_followed: Callable[[str, str], bool]
    """(stripped answer, argument) -> whether the answer follows the rule."""


@dataclass(frozen=True)
class Instruction:
    """A prompt and the rule that checks an answer to it."""

    prompt: str
    rule: str
    argument: str


def _is_lower(text: str, _: str) -> bool:
    return text == text.lower() and _WORD.search(text) is not None


def _is_upper(text: str, _: str) -> bool:
    return text == text.upper() and _WORD.search(text) is not None


def _begins(text: str, words: str) -> bool:
    return text.startswith(words)


def _ends(text: str, words: str) -> bool:
    return text.endswith(words)


def _has_items(text: str, number: str) -> bool:
    return sum(_ITEM.match(line) is not None for line in text.splitlines()) == int(number)


def _lacks(text: str, letter: str) -> bool:
    return letter not in text.lower()


def _contains(text: str, word: str) -> bool:
    return word.lower() in map(str.lower, _WORD.findall(text))


def _is_short(text: str, most: str) -> bool:
    return len(_WORD.findall(text)) <= int(most)


def _is_quoted(text: str, _: str) -> bool:
    return len(text) > 2 and text[0] == text[-1] == '"'


def _has_sentences(text: str, number: str) -> bool:
    """Check the number of sentences; unfinished text after the last one counts as a sentence."""
    text = NUMBERED.sub("", text)
    ends = [end.end() for end in SENTENCE_END.finditer(text)]
    return len(ends) == int(number) and ends[-1] == len(text)


RULES = {
    "lowercase": InstructionRule("Write your answer in lowercase letters only.", ("",), _is_lower),
    "uppercase": InstructionRule("Write your answer in CAPITAL LETTERS only.", ("",), _is_upper),
    "begin": InstructionRule('Begin your answer with "{argument}"', ("Of course", "Well,", "My answer", "Certainly"), _begins),
    "end": InstructionRule('End your answer with "{argument}"', ("That is all.", "I hope this helps.", "The end."), _ends),
    "items": InstructionRule(
        "Give a list of exactly {argument} items, each on a line of its own that begins with a dash.", ("2", "3", "4"), _has_items
    ),
    "without": InstructionRule('Do not use the letter "{argument}" anywhere in your answer.', ("z", "j", "k", "e"), _lacks),
    "contain": InstructionRule('Use the word "{argument}" in your answer.', ("river", "lamp", "yellow", "seven"), _contains),
    "short": InstructionRule("Use at most {argument} words.", ("5", "10", "20"), _is_short),
    "commas": InstructionRule("Use no commas.", (",",), _lacks),
    "quoted": InstructionRule("Put your whole answer in double quotation marks.", ("",), _is_quoted),
    "sentences": InstructionRule("Answer in exactly {argument} sentences.", ("1", "2"), _has_sentences),
}

_QUESTIONS = (
    "Name some things that one may see in {place}.",
    "Say what {place} is like.",
    "Tell a child what one can do in {place}.",
    "Describe a morning in {place}.",
    "Say why somebody would like to live near {place}.",
)
_PLACES = (
    "a forest",
    "a kitchen",
    "a harbour",
    "a library",
    "a market",
    "a school",
    "the mountains",
    "a small village",
    "a garden",
    "a museum",
)


def instructions(n: int, seed: int = 0) -> list[Instruction]:
    """Return n distinct prompts (at most 550), cycling through the rules; a larger n only appends prompts.

    Raises UserError for more prompts than there are.

    >>> instructions(1)[0].rule
    'lowercase'
    """
    most = len(RULES) * len(_QUESTIONS) * len(_PLACES)
    if n > most:
        raise UserError(f"instructions must be at most {most}, got {n}: there are no more that differ")
    generator = np.random.default_rng(seed_for("instructions", seed))
    orders = {name: generator.permutation(len(_QUESTIONS) * len(_PLACES)) for name in RULES}
    return [_instruction(name, int(orders[name][place // len(RULES)])) for place, name in zip(range(n), list(RULES) * n, strict=False)]


def _instruction(name: str, number: int) -> Instruction:
    """Return the prompt of a rule with the question and place of this number."""
    rule, question = RULES[name], _QUESTIONS[number // len(_PLACES)].format(place=_PLACES[number % len(_PLACES)])
    argument = rule.arguments[number % len(rule.arguments)]
    return Instruction(f"{question} {rule.asked.format(argument=argument)}", name, argument)


def is_followed(text: str, instruction: Instruction) -> bool:
    """Tell whether an answer follows its instruction.

    >>> is_followed("trees, moss and a deer.", Instruction("...", "lowercase", ""))
    True
    """
    text = text.strip()
    return bool(text) and RULES[instruction.rule].is_followed(text, instruction.argument)
