"""How different a step's attempts are: what of richness there is to learn from, measured before any update.

distinct_answers   share of a group's attempts that say different answers, as a vote reads them (`etude.tasks.votes.vote`)
distinct_forms     share of a group's attempts that differ in form (`solution_form`)
pass_at_K          chance that one of K attempts is right, K = 1, 2, 4, ... (`etude.evaluation.statistics.pass_curve`)

Each is a mean over groups. A share is the number of different ones over the number of attempts: 1 / G where all G attempts are alike, 1
where no two are. All cost a few string operations an attempt, and nothing of the model.
"""

import re
from collections.abc import Sequence
from statistics import fmean

from etude.evaluation.statistics import pass_curve
from etude.tasks.answers import last_characters

_NUMBER = re.compile(r"(?:(?<![\w)\].])[-+\u2212])?\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")


def diversity(texts: Sequence[Sequence[str]], votes: Sequence[Sequence[str | None]], right: Sequence[Sequence[bool]]) -> dict[str, float]:
    """The measures of groups of attempts, by their texts, votes and whether they are right; attempts without a vote have one answer in
    common, none.
    """
    forms = [[solution_form(text) for text in group] for group in texts]
    measured = {"distinct_answers": distinct_share(votes), "distinct_forms": distinct_share(forms)}
    return measured | {f"pass_at_{k}": value for k, value in pass_curve(right).items()}


def distinct_share(groups: Sequence[Sequence[str | None]]) -> float:
    """Return how many different readings a group has for every one of it, on average over groups.

    >>> distinct_share([["a", "a", "b"], ["c", "c", "c"]])
    0.5
    """
    return fmean(len(set(group)) / len(group) for group in groups)


def solution_form(text: str) -> str:
    """Return how a text goes about it, whatever it is about: every number is `#`, every word that begins with a capital letter `@`, and
    space of any kind a single one; all else, words, marks and their order, counts.

    A sign belongs to its number unless it stands right behind another one or a bracket, as in `5-3`. Words that begin a sentence are masked
    as names are.

    >>> solution_form("Sam had 9 - 4 = 5 pencils."), solution_form("Ann had 12 - 10 = 2 pencils.")
    ('@ had # - # = # pencils.', '@ had # - # = # pencils.')
    """
    masked = _NUMBER.sub("#", last_characters(text))
    return " ".join(_WORD.sub(lambda word: "@" if word[0][0].isupper() else word[0], masked).split())
