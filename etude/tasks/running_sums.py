"""Generates chains of additions and subtractions, worked line by line: problems for which more tokens help, without any data file.

    tasks: {function: etude.tasks.running_sums:running_sums}

A chain has 3 to 5 numbers from 1 to 20, "Work out 12 + 7 - 5.". At least one is subtracted, since otherwise the sum of all would be a good
guess, and the running total never falls below 0. The solution has one line for each operation and then the answer. So the number of lines
that an answer needs is known (`terms` - 1), and an earlier answer must do the remaining operations at once. A third of the solutions
contain a check before the answer: after "Wait" they repeat some of their first lines. A model trained on them can continue when its thought
is extended (`etude.rollouts.thought`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from etude.randomness import seed_for

TERMS = range(3, 6)
"""The possible lengths of a chain, equally likely."""
LARGEST = 20
CHECK, CHECKED = "Wait", 3
"""The word that begins a check; one in CHECKED solutions has a check."""


def running_sums(split: str, n: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows with `question`, `answer`, `worked` and the number of `terms`; they differ by split and seed.

    >>> row = next(running_sums("train", 1, seed=0))
    >>> row["worked"].endswith(f"The answer is {row['answer']}.")
    True
    """
    generator = np.random.default_rng(seed_for("running_sums", split, seed))
    for _ in range(n or 100):
        terms = int(generator.choice(TERMS))
        is_checked, lines = generator.integers(CHECKED) == 0, int(generator.integers(1, terms))
        yield chain(sample_terms(generator, terms), checked_lines=lines if is_checked else 0)


def chain(numbers: Sequence[int], checked_lines: int = 0) -> dict[str, Any]:
    """Build the row of a chain of signed numbers, the first of which is positive; `checked_lines`: number of solution lines repeated as a
    check.

    >>> chain([12, 7, -5], checked_lines=1)["worked"].splitlines()
    ['12 + 7 = 19', '19 - 5 = 14', 'Wait', '12 + 7 = 19', 'The answer is 14.']
    """
    total, lines = numbers[0], []
    for number in numbers[1:]:
        lines.append(f"{total} {_signed(number)} = {total + number}")
        total += number
    asked = " ".join([str(numbers[0]), *map(_signed, numbers[1:])])
    check = [CHECK, *lines[:checked_lines]] if checked_lines else []
    worked = "\n".join([*lines, *check, f"The answer is {total}."])
    return {"question": f"Work out {asked}.", "answer": str(total), "worked": worked, "verifier": "numeric", "terms": len(numbers)}


def sample_terms(generator: np.random.Generator, terms: int) -> list[int]:
    """Sample signed numbers, at least one below 0, whose running total never falls below 0."""
    numbers: list[int] = []
    while not any(number < 0 for number in numbers):
        numbers = []
        for size in generator.integers(1, LARGEST + 1, terms).tolist():
            takes_away = numbers and sum(numbers) >= size and generator.integers(2)
            numbers.append(-size if takes_away else size)
    return numbers


def _signed(number: int) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number)}"
