"""Questions about meetings (QMSum, text around the answering spans) and stories (SQuALITY, text from the beginning), cut to a length.

QMSum: Zhong et al. 2021, NAACL, arXiv 2104.05938. SQuALITY: Wang et al. 2022, EMNLP, arXiv 2205.11465.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from etude.errors import UserError
from etude.evaluation.long.haystack import Count, Haystack
from etude.evaluation.long.task import LongTask
from etude.tasks.files import file_rows

Generator = Callable[[Random, Haystack, int], LongTask]


def qmsum_generator(path: Path) -> Generator:
    """Create a generator of QMSum tasks: the turns around the span that answers a question about a meeting.

    Raises UserError for a file without questions.
    """
    asked = [(row, query) for row in _rows(path) for query in row["specific_query_list"]]
    if not asked:
        raise UserError(f"{path} has no question: name a file of QMSum")

    def meetings(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
        row, query = draw.choice(asked)
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"]]
        first, last = (int(end) for end in query["relevant_text_span"][0])
        context = _around(turns, first, min(last, len(turns) - 1), tokens, haystack.count)
        return LongTask("meetings", context, query["query"], "", (query["answer"],), by_likeness=True)

    return meetings


def squality_generator(path: Path) -> Generator:
    """Create a generator of SQuALITY tasks: a question about the first part of a story.

    Raises UserError for a row without a paragraph that fits.
    """
    asked = [(row["document"], question) for row in _rows(path) for question in row["questions"]]
    if not asked:
        raise UserError(f"{path} has no question: name a file of SQuALITY")

    def stories(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
        document, question = draw.choice(asked)
        answers = tuple(each["response_text"] for each in question["responses"])
        paragraphs = [part for part in document.split("\n") if part.strip()]
        context = _around(paragraphs, 0, len(paragraphs) - 1, tokens, haystack.count)
        return LongTask("stories", context, question["question_text"], "", answers, by_likeness=True)

    return stories


def _rows(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for _, row in file_rows(path)]


def _around(parts: list[str], first: int, last: int, tokens: int, count: Count) -> str:
    """Take the parts `first` to `last`, then alternately those before and after them, as long as they fit."""
    chosen: list[int] = []
    room = tokens
    outside = [place for step in range(1, len(parts)) for place in (first - step, last + step) if 0 <= place < len(parts)]
    for place in [*range(first, last + 1), *outside]:
        room -= count(f"{parts[place]}\n")
        if room < 0:
            break
        chosen.append(place)
    if not chosen:
        raise UserError(f"the text that answers a question begins with more than {tokens} tokens at once: set tokens to more")
    return "\n".join(parts[place] for place in sorted(chosen))
