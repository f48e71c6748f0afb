"""Diversity of a step's attempts, measured before the update.

distinct_answers   number of different answers in a group, as a vote reads them (`etude.tasks.votes.vote`), per attempt
distinct_forms     number of different solution forms in a group (`solution_form`), per attempt
pass_at_K          probability that one of K attempts is correct, K = 1, 2, 4, ... (`etude.evaluation.statistics.pass_curve`)

Each is a mean over groups. The shares are 1 / G if all G attempts are alike, 1 if no two are. They cost a few string operations for each
attempt, and no model computation.
"""

import re
from collections.abc import Sequence
from statistics import fmean

from etude.evaluation.statistics import pass_curve
from etude.tasks.answers import last_characters

_NUMBER = re.compile(r"(?:(?<![\w)\].])[-+\u2212])?\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")


def diversity(texts: Sequence[Sequence[str]], votes: Sequence[Sequence[str | None]], right: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Measure groups of attempts by their texts, their votes and whether they are correct; attempts without a vote count as one common
    answer.
    """
    forms = [[solution_form(text) for text in group] for group in texts]
    measured = {"distinct_answers": distinct_share(votes), "distinct_forms": distinct_share(forms)}
    return measured | {f"pass_at_{k}": value for k, value in pass_curve(right).items()}


def distinct_share(groups: Sequence[Sequence[str | None]]) -> float:
    """Return the number of different entries per entry of a group, averaged over groups.

    >>> distinct_share([["a", "a", "b"], ["c", "c", "c"]])
    0.5
    """
    return fmean(len(set(group)) / len(group) for group in groups)


def solution_form(text: str) -> str:
    """Reduce a text to the form of its solution: numbers become `#`, capitalised words `@`, and whitespace a single space; other words,
    marks and their order are kept.

    A sign belongs to its number unless it directly follows another number or a bracket, as in `5-3`. Words that begin a sentence are masked
    like names.

    >>> solution_form("Sam had 9 - 4 = 5 pencils."), solution_form("Ann had 12 - 10 = 2 pencils.")
    ('@ had # - # = # pencils.', '@ had # - # = # pencils.')
    """
    masked = _NUMBER.sub("#", last_characters(text))
    return " ".join(_WORD.sub(lambda word: "@" if word[0][0].isupper() else word[0], masked).split())
