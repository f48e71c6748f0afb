"""Fills a token budget with the best documents of a corpus, without near-duplicates and contamination."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.documents import Corpus, read_documents
from etude.knowledge.duplicates import NearDuplicateIndex
from etude.knowledge.grading import DocumentGrader
from etude.knowledge.scoring import Scores
from etude.tasks.task import canonical_words

_LEAST_AT_ONCE = 500
"""Minimum number of documents for which the corpus is read again."""
_GRADED_AT_ONCE = 64

CountTokens = Callable[[Sequence[str]], list[int]]


class BudgetFiller:
    """Takes documents in an order of preference until a token budget is full, without those that it took before."""

    def __init__(
        self,
        corpus: Corpus,
        data: Path | None,
        scores: Scores,
        contamination: ContaminationCheck,
        seen: NearDuplicateIndex,
        count_tokens: CountTokens,
    ) -> None:
        self.corpus, self.data, self.scores, self.contamination = corpus, data, scores, contamination
        self.seen, self.count_tokens = seen, count_tokens
        self.considered: set[int] = set()
        self.duplicates: list[dict[str, str]] = []
        self.contaminated: list[dict[str, Any]] = []
        self._tokens_a_word = 1.5
        self._origins: dict[int, str] = {}

    def fill(self, order: np.ndarray, budget_tokens: int, path: Path, grading: DocumentGrader | None = None) -> dict[int, int]:
        """Write the best documents of `order` to `path`; returns the tokens of each by its index in the corpus.

        The corpus is read once for as many documents as should fill the budget, and again if near-duplicates and contamination left room.
        The first of two near-duplicates in the corpus stays, at the better rank. Documents over the budget are dropped, lowest rank first,
        and so are single documents that are longer than the budget.
        """
        partial, tokens = path.with_name(path.name + ".partial"), dict[int, int]()
        rank = {int(place): number for number, place in enumerate(order)}
        with partial.open("w", encoding="utf-8") as out:
            at = 0
            while at < len(order) and sum(tokens.values()) < budget_tokens:
                admitted_share = max(len(tokens), 1) / max(at, 1)
                missing = (budget_tokens - sum(tokens.values())) * 1.1 / min(1.0, admitted_share)
                cumulative_tokens = np.cumsum(self.scores.words[order[at:]]) * self._tokens_a_word
                count = max(int(np.searchsorted(cumulative_tokens, missing)) + 1, _LEAST_AT_ONCE if at else 1)
                for place, row in _filter_by_grade(self._filter_documents(set(map(int, order[at : at + count])), rank), grading):
                    if row["tokens"] > budget_tokens:
                        continue
                    tokens[place] = row["tokens"]
                    out.write(json.dumps({"place": place, **row}, ensure_ascii=False) + "\n")
                at += count
        kept, total = dict[int, int](), 0
        for place in sorted(tokens, key=rank.__getitem__):
            if total + tokens[place] > budget_tokens:
                break
            kept[place] = tokens[place]
            total += tokens[place]
        _write_chosen(partial, kept, path)
        return kept

    def _filter_documents(self, wanted: set[int], rank: dict[int, int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the wanted documents that are neither near-duplicates nor contaminated, in the corpus's order.

        The original of a near-duplicate gets the better of the two ranks.
        """
        self.considered |= wanted
        words = tokens = 0
        with closing(read_documents(self.corpus, self.data)) as all_documents:  # type: ignore[type-var]
            for place, document in enumerate(all_documents):
                if place not in wanted:
                    continue
                wanted.discard(place)
                canonical = canonical_words(document.text)
                if leak := self.contamination.find_worst(canonical):
                    self.contaminated.append({"origin": document.origin, **leak._asdict()})
                elif (like := self.seen.add(place, canonical)) is not None:
                    self.duplicates.append({"origin": document.origin, "like": self._origins[like]})
                    rank[like] = min(rank.get(like, rank[place]), rank[place])
                else:
                    self._origins[place] = document.origin
                    count = self.count_tokens([document.text])[0]
                    words, tokens = words + int(self.scores.words[place]), tokens + count
                    score = round(float(self.scores.score[place]), 4)
                    named = {"heading": document.heading} if document.heading else {}
                    yield place, {"text": document.text, **named, "origin": document.origin, "score": score, "tokens": count}
                if not wanted:
                    break
        if words:
            self._tokens_a_word = tokens / words


def _filter_by_grade(rows: Iterable[tuple[int, dict[str, Any]]], grading: DocumentGrader | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the documents with a sufficient grade, or all of them without grading."""
    if grading is None:
        yield from rows
        return
    rows = iter(rows)
    while batch := list(islice(rows, _GRADED_AT_ONCE)):
        passed = grading.passes([row["text"] for _, row in batch])
        yield from (pair for pair, is_good in zip(batch, passed, strict=True) if is_good)


def _write_chosen(partial: Path, kept: Mapping[int, int], path: Path) -> None:
    """Write the chosen rows of `partial` to `path`, in the corpus's order."""
    chosen = path.with_name(path.name + ".chosen")
    rows: list[tuple[int, int]] = []
    with partial.open("rb") as lines:
        begin = 0
        for line in lines:
            place = json.loads(line)["place"]
            if place in kept:
                rows.append((place, begin))
            begin += len(line)
        with chosen.open("w", encoding="utf-8") as out:
            for _, begin in sorted(rows):
                lines.seek(begin)
                row = json.loads(lines.readline())
                out.write(json.dumps({name: value for name, value in row.items() if name != "place"}, ensure_ascii=False) + "\n")
    chosen.rename(path)
    partial.unlink()
