"""Streams documents from files, folders and data sets, in pieces that can be scored one by one.

    for document in documents(Corpus(path=["books", "web.jsonl"]), data=Path("sets")): ...

A text of more than `max_words` is split between paragraphs, and a longer paragraph between words, so that one page on a subject is found in
a book about another subject. Only the current row is in memory; JSON arrays and single text files are read completely. A row without text
becomes a document without text, which the caller may count: one broken line does not end a corpus.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from etude.errors import UserError, at_least
from etude.tasks.files import ENDINGS, candidate_paths, file_rows
from etude.tasks.hub import streamed_rows

TEXT_ENDINGS = (".txt", ".md")
_JSONL = ".jsonl"
_SURROGATES = re.compile("[\ud800-\udfff]")
_READ = (*TEXT_ENDINGS, *ENDINGS)

Row = tuple[str, Mapping[str, Any] | None]
"""The origin of a row, and the row, or None if it cannot be read."""


@dataclass(frozen=True)
class Document:
    """A piece of text with its origin."""

    text: str
    origin: str
    """Origin of the text, `web.jsonl:12#3`, unique in a corpus; a file of a folder has its path there. For a split text, the number of the
    piece follows the #."""
    heading: str = ""
    """The heading above the text."""
    label: str = ""
    """A label from the data, such as the subject; used only to measure the selection."""


@dataclass(frozen=True)
class Corpus:
    """Settings of a corpus: files and folders, or a data set."""

    path: list[str] = field(default_factory=list)
    """Folders (all readable files in them, by name) and files: .txt, .md, .jsonl, .json, .csv, .tsv, .parquet, and .gz after the first
    three; in the current or the data folder."""
    dataset: str | None = None
    """A data set on the Hugging Face hub; it is streamed."""
    dataset_name: str | None = None
    """Configuration of the data set, if it has several."""
    dataset_split: str = "train"
    text_column: str = "text"
    """Column with the text."""
    heading_column: str | None = None
    """Column with a row's heading, such as title; null = no heading."""
    label_column: str | None = None
    """Column with a row's label, such as its subject; null = none."""
    max_words: int = 400
    """Longest document in words; longer texts are split."""

    def check(self, name: str) -> None:
        """Raise UserError if the corpus names no source, or two."""
        if bool(self.path) == bool(self.dataset):
            raise UserError(f"{name} needs either path or dataset, got {'both' if self.path else 'neither'}")
        if self.dataset_name and not self.dataset:
            raise UserError(f"{name}.dataset_name belongs to dataset and has no effect on path: leave it out")
        at_least(f"{name}.max_words", self.max_words, 20)


def read_documents(corpus: Corpus, data: Path | None = None) -> Iterator[Document]:
    """Yield every document of a corpus, always in the same order; `data` is the folder of data sets.

    Raises UserError for a missing path, and for a file whose first row has no text column.
    """
    for origin, row in _rows(corpus, data):
        text = row.get(corpus.text_column) if row is not None else None
        heading, label = (_column_text(row, column) for column in (corpus.heading_column, corpus.label_column))
        if not isinstance(text, str) or not text.strip():
            yield Document("", origin, heading, label)
            continue
        pieces = split_text(_replace_surrogates(text), corpus.max_words)
        for number, piece in enumerate(pieces):
            yield Document(piece, f"{origin}#{number}" if len(pieces) > 1 else origin, heading, label)


def _column_text(row: Mapping[str, Any] | None, column: str | None) -> str:
    value = row.get(column) if row is not None and column else None
    return "" if value is None else _replace_surrogates(str(value))


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which are valid in JSON but not in a file."""
    return _SURROGATES.sub("\ufffd", text)


def _rows(corpus: Corpus, data: Path | None) -> Iterator[Row]:
    if corpus.dataset:
        sources: list[Iterator[Row]] = [streamed_rows(corpus.dataset, name=corpus.dataset_name, split=corpus.dataset_split)]
    else:
        sources = [_read(name, path, corpus.text_column) for name, path in list_files(corpus, data)]
    for rows in sources:
        first = next(iter(rows), None)
        if first is None:
            continue
        origin, row = first
        if row is not None and corpus.text_column not in row:
            raise UserError(f"{origin} has no column {corpus.text_column!r}: its columns are {', '.join(row)}; name one with text_column")
        yield first
        yield from rows


def list_files(corpus: Corpus, data: Path | None) -> list[tuple[str, Path]]:
    """List the files of a corpus, each with its name in document origins.

    Raises UserError for a path that is missing, unreadable, or named twice.
    """
    found: list[tuple[str, Path]] = []
    for path in corpus.path:
        place = next((place for place in candidate_paths(path, data) if place.exists()), None)
        if place is None:
            raise UserError(f"path {path!r} is neither a file nor a folder, in the current folder{' or the data folder' if data else ''}")
        inside = sorted(file for file in place.rglob("*") if file.is_file() and _ending(file) in _READ) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"folder {path!r} holds nothing that can be read: {', '.join(_READ)}")
        if _ending(inside[0]) not in _READ:
            raise UserError(f"{path!r} must end in one of {', '.join(_READ)}")
        found += [(f"{path.rstrip('/')}/{file.relative_to(place).as_posix()}" if place.is_dir() else path, file) for file in inside]
    seen: dict[Path, str] = {}
    for name, file in found:
        whole = file.resolve()
        if whole in seen:
            raise UserError(f"{name} is read twice, as {seen[whole]} too: name it once")
        seen[whole] = name
    return found


def _ending(file: Path) -> str:
    """Return the file ending, without .gz if a readable ending is before it."""
    inner = Path(file.stem).suffix
    return inner if file.suffix == ".gz" and inner in (*TEXT_ENDINGS, _JSONL) else file.suffix


def _read(name: str, file: Path, column: str) -> Iterator[Row]:
    try:
        yield from _rows_of(name, file, column)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{name} cannot be read to its end ({error}): repair it, or leave it out") from error


def _rows_of(name: str, file: Path, column: str) -> Iterator[Row]:
    ending = _ending(file)
    if ending in TEXT_ENDINGS:
        with _opened(file) as text:
            yield name, {column: text.read()}
    elif ending == _JSONL:
        with _opened(file) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{name}:{number}", _object(line)
    else:
        for origin, row in file_rows(file):
            yield name + origin.removeprefix(file.name), row


def _opened(file: Path) -> TextIO:
    """Open a text file, gzipped or not; bytes that are not UTF-8 become the replacement character, which a quality rule limits."""
    return (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", errors="replace")  # type: ignore[operator, no-any-return]


def _object(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, Mapping) else None


def split_text(text: str, max_words: int) -> list[str]:
    """Split a text between paragraphs into pieces of at most `max_words` words; a longer paragraph is split between words.

    >>> split_text("one two\\n\\nthree\\n\\nfour five six", 3)
    ['one two\\n\\nthree', 'four five six']
    >>> split_text("one two three four five", 2)
    ['one two', 'three four', 'five']
    """
    pieces: list[str] = []
    held: list[str] = []
    size = 0
    for paragraph in filter(str.strip, text.split("\n\n")):
        words = len(paragraph.split())
        if held and size + words > max_words:
            pieces.append("\n\n".join(held))
            held, size = [], 0
        if words > max_words:
            pieces += _split_paragraph(paragraph, max_words)
            continue
        held.append(paragraph.strip("\n"))
        size += words
    return [*pieces, "\n\n".join(held)] if held else pieces


def _split_paragraph(paragraph: str, max_words: int) -> list[str]:
    """Split a long paragraph between words; its lines become one."""
    words = paragraph.split()
    return [" ".join(words[start : start + max_words]) for start in range(0, len(words), max_words)]
