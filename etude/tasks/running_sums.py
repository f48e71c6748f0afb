"""Chains of additions and subtractions, worked with a running total: problems in which more tokens help, as a source that needs no data.

    tasks: {function: etude.tasks.running_sums:running_sums}

A chain of 3 to 6 numbers from 1 to 20 that never falls below 0, "Work out 12 + 7 - 5.", is worked a line for each operation and then says
its answer; so the number of lines that an answer needs is known (`terms` less one), and an answer that is given before them has to do in
one go what was left. Every chain of a length is as likely as the numbers that it is drawn with; lengths are equally frequent.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from etude.randomness import seed_for

TERMS = range(3, 7)
"""How many numbers a chain may have."""
LARGEST = 20


def running_sums(split: str, n: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """Rows with `question`, `answer`, `worked` and the number of `terms`; other ones in each split and for each seed.

    >>> row = next(running_sums("train", 1, seed=0))
    >>> row["worked"].endswith(f"The answer is {row['answer']}.")
    True
    """
    generator = np.random.default_rng(seed_for("running_sums", split, seed))
    for _ in range(n or 100):
        yield chain(drawn(generator, int(generator.choice(TERMS))))


def chain(numbers: Sequence[int]) -> dict[str, Any]:
    """The row of a chain of signed numbers, the first of which is positive.

    >>> chain([12, 7, -5])["worked"].splitlines()
    ['12 + 7 = 19', '19 - 5 = 14', 'The answer is 14.']
    """
    total, lines = numbers[0], []
    for number in numbers[1:]:
        lines.append(f"{total} {_signed(number)} = {total + number}")
        total += number
    asked = " ".join([str(numbers[0]), *map(_signed, numbers[1:])])
    worked = "\n".join([*lines, f"The answer is {total}."])
    return {"question": f"Work out {asked}.", "answer": str(total), "worked": worked, "verifier": "numeric", "terms": len(numbers)}


def drawn(generator: np.random.Generator, terms: int) -> list[int]:
    """Signed numbers of which no beginning adds up to less than 0."""
    numbers: list[int] = []
    for size in generator.integers(1, LARGEST + 1, terms).tolist():
        takes_away = numbers and sum(numbers) >= size and generator.integers(2)
        numbers.append(-size if takes_away else size)
    return numbers


def _signed(number: int) -> str:
    return f"{'-' if number < 0 else '+'} {abs(number)}"
