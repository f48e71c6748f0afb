"""Documents: text as it is found, streamed from files, folders and data sets, in pieces that can be judged one by one.

    for document in documents(Corpus(path=["books", "web.jsonl"]), data=Path("sets")): ...

A book is no document: what is longer than `max_words` is cut between paragraphs, and a longer paragraph between words, so that one page
on a subject is found in a book about another. Nothing is held but the row that is being read; only JSON arrays and single text files are
read whole. A row without text is a document without text, for whoever counts them: one broken line does not end a corpus.
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
from etude.tasks.files import ENDINGS, file_rows, places_of
from etude.tasks.hub import streamed_rows

TEXT_ENDINGS = (".txt", ".md")
_JSONL = ".jsonl"
_SURROGATES = re.compile("[\ud800-\udfff]")
_READ = (*TEXT_ENDINGS, *ENDINGS)

Row = tuple[str, Mapping[str, Any] | None]
"""Where it stands, and what it is; None where it cannot be read."""


@dataclass(frozen=True)
class Document:
    """A piece of text."""

    text: str
    origin: str
    """Where it stands, `web.jsonl:12#3`: once in a corpus; a file of a folder by the path that led there. Of a text that was cut, the
    number of the piece is behind the mark."""
    heading: str = ""
    """What it stands below."""
    label: str = ""
    """What somebody says of it, such as its subject; nothing is selected by it, what was selected is judged by it."""


@dataclass(frozen=True)
class Corpus:
    """Where text comes from: files and folders, or a data set."""

    path: list[str] = field(default_factory=list)
    """Folders (all that can be read in them, by name) and files: .txt, .md, .jsonl, .json, .csv, .tsv, .parquet, and .gz behind the first
    three; in the current folder or the data folder."""
    dataset: str | None = None
    """A data set on the Hugging Face hub, which is streamed."""
    dataset_name: str | None = None
    """The configuration of the data set, where it has several."""
    dataset_split: str = "train"
    text_column: str = "text"
    """The column of rows that holds the text."""
    heading_column: str | None = None
    """The column that holds a row's heading, such as title; no heading unless given."""
    label_column: str | None = None
    """The column that says what a row is about, where one does."""
    max_words: int = 400
    """Longer texts are cut."""

    def check(self, name: str) -> None:
        """Raise UserError where it names no source, or two."""
        if bool(self.path) == bool(self.dataset):
            raise UserError(f"{name} needs either path or dataset, got {'both' if self.path else 'neither'}")
        if self.dataset_name and not self.dataset:
            raise UserError(f"{name}.dataset_name belongs to dataset and has no effect on path: leave it out")
        at_least(f"{name}.max_words", self.max_words, 20)


def documents(corpus: Corpus, data: Path | None = None) -> Iterator[Document]:
    """Every document of a corpus, in an order that stays the same; `data` is the folder of data sets.

    Raises UserError for a path that is not there, and for a file whose first row has no column of that name.
    """
    for origin, row in _rows(corpus, data):
        text = row.get(corpus.text_column) if row is not None else None
        heading, label = (_named(row, column) for column in (corpus.heading_column, corpus.label_column))
        if not isinstance(text, str) or not text.strip():
            yield Document("", origin, heading, label)
            continue
        pieces = cut(_whole(text), corpus.max_words)
        for number, piece in enumerate(pieces):
            yield Document(piece, f"{origin}#{number}" if len(pieces) > 1 else origin, heading, label)


def _named(row: Mapping[str, Any] | None, column: str | None) -> str:
    value = row.get(column) if row is not None and column else None
    return "" if value is None else _whole(str(value))


def _whole(text: str) -> str:
    """The text with halves of characters replaced, which JSON can spell and no file can hold."""
    return _SURROGATES.sub("\ufffd", text)


def _rows(corpus: Corpus, data: Path | None) -> Iterator[Row]:
    if corpus.dataset:
        sources: list[Iterator[Row]] = [streamed_rows(corpus.dataset, name=corpus.dataset_name, split=corpus.dataset_split)]
    else:
        sources = [_read(name, path, corpus.text_column) for name, path in files_of(corpus, data)]
    for rows in sources:
        first = next(iter(rows), None)
        if first is None:
            continue
        origin, row = first
        if row is not None and corpus.text_column not in row:
            raise UserError(f"{origin} has no column {corpus.text_column!r}: its columns are {', '.join(row)}; name one with text_column")
        yield first
        yield from rows


def files_of(corpus: Corpus, data: Path | None) -> list[tuple[str, Path]]:
    """Each file of a corpus with the name that documents say; raises UserError for a path that is not there, or that comes twice."""
    found: list[tuple[str, Path]] = []
    for path in corpus.path:
        place = next((place for place in places_of(path, data) if place.exists()), None)
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
    """Without .gz, where it may stand."""
    inner = Path(file.stem).suffix
    return inner if file.suffix == ".gz" and inner in (*TEXT_ENDINGS, _JSONL) else file.suffix


def _read(name: str, file: Path, column: str) -> Iterator[Row]:
    try:
        yield from _rows_of(name, file, column)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{name} cannot be read to its end ({error}): mend it, or leave it out") from error


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
    """Bytes that are not UTF-8 become the replacement character, of which a document may not hold many."""
    return (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", errors="replace")  # type: ignore[operator, no-any-return]


def _object(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, Mapping) else None


def cut(text: str, max_words: int) -> list[str]:
    """Pieces of at most `max_words` words that together are the text's paragraphs: as many paragraphs as fit, or a part of one.

    >>> cut("one two\\n\\nthree\\n\\nfour five six", 3)
    ['one two\\n\\nthree', 'four five six']
    >>> cut("one two three four five", 2)
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
            pieces += _parts(paragraph, max_words)
            continue
        held.append(paragraph.strip("\n"))
        size += words
    return [*pieces, "\n\n".join(held)] if held else pieces


def _parts(paragraph: str, max_words: int) -> list[str]:
    """A long paragraph in pieces: between words, so that its lines become one."""
    words = paragraph.split()
    return [" ".join(words[start : start + max_words]) for start in range(0, len(words), max_words)]
