"""Scores and filters every document of a corpus, in blocks, in several processes, resumable.

    blocks/000012.safetensors    for each document of block 12, in order: score, words, flaw, is_domain

A block is a sequence of documents of about `block_bytes`. Its file appears by one rename, so a killed run resumes with the missing blocks.
A block's file holds a hash of its documents; a changed corpus is refused. Memory is that of a few blocks, and at the end one row of numbers
for each document.
"""

import hashlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from etude.errors import UserError
from etude.knowledge.documents import Document
from etude.knowledge.quality import NO_TEXT, RULES, Quality, find_broken_rule
from etude.knowledge.scorers import Scorer
from etude.processes import kill_with_parent

FLAWS = ("", NO_TEXT, *RULES)
"""The names for the numbers in a block's `flaw`."""


@dataclass(frozen=True)
class Scores:
    """The columns of all blocks: one entry for each document of a corpus, in order."""

    score: np.ndarray
    words: np.ndarray
    flaw: np.ndarray
    """Index into `FLAWS`; 0 if no rule is broken."""
    is_domain: np.ndarray
    """Whether its label is one of the domain's."""


@dataclass(frozen=True)
class Block:
    """Documents that are scored together."""

    number: int
    documents: list[Document]

    @property
    def key(self) -> str:
        """A hash of the documents."""
        digest = hashlib.blake2b(digest_size=8)
        for document in self.documents:
            digest.update(f"{document.origin}\x1f{document.text}\x1e".encode(errors="replace"))
        return digest.hexdigest()


def split_into_blocks(documents: Iterable[Document], block_bytes: int) -> Iterator[Block]:
    """Split documents into blocks of about `block_bytes`."""
    held: list[Document] = []
    size = number = 0
    for document in documents:
        held.append(document)
        size += len(document.text)
        if size >= block_bytes:
            yield Block(number, held)
            held, size, number = [], 0, number + 1
    if held:
        yield Block(number, held)


def score_all(
    documents: Iterable[Document],
    scorer: Scorer,
    quality: Quality,
    folder: Path,
    *,
    domain_labels: Sequence[str],
    workers: int,
    block_bytes: int,
    tell: Callable[[int], None] = lambda bytes: None,
) -> Scores:
    """Score every document, skipping blocks that an earlier process scored, and return all scores.

    `workers` 0 scores in this process, which a scorer that runs a model needs. `tell` gets the number of bytes of text in each block.
    Raises UserError if a worker process is killed or the corpus changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    count = 0

    def missing() -> Iterator[Block]:
        nonlocal count
        for block in split_into_blocks(documents, block_bytes):
            count += 1
            if not _is_kept(_path(folder, block.number), block):
                yield block
            else:
                tell(sum(len(document.text) for document in block.documents))

    if workers == 0:
        for block in missing():
            tell(_score(block, scorer, quality, domain_labels, folder))
    else:
        context = get_context("spawn")  # a fork of a process with threads may hang
        given = (os.getpid(), scorer, quality, domain_labels, folder)
        waiting: deque[Future[int]] = deque()
        try:
            with _without_current_folder(), ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare, initargs=given) as pool:
                for block in missing():
                    waiting.append(pool.submit(_score_prepared, block))
                    if len(waiting) > 2 * workers:  # waiting blocks are in memory
                        tell(waiting.popleft().result())
                for future in waiting:
                    tell(future.result())
        except BrokenProcessPool as error:
            raise UserError(
                f"a process that scores text was killed, perhaps for its memory: lower selection.workers (now {workers}); what was scored "
                'is kept. A script of your own needs its calls below `if __name__ == "__main__":`'
            ) from error
    return _read(folder, count)


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Prevent started interpreters from importing from the current folder, which `python -c` searches first."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before


_prepared: tuple[Scorer, Quality, Sequence[str], Path]


def _prepare(parent: int, *parts: Any) -> None:
    """Prepare a worker process: store the shared arguments, and end with the parent."""
    global _prepared
    kill_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends the workers
    _prepared = parts  # type: ignore[assignment]


def _score_prepared(block: Block) -> int:
    return _score(block, *_prepared)


def _score(block: Block, scorer: Scorer, quality: Quality, domain_labels: Sequence[str], folder: Path) -> int:
    """Write the block's file and return its bytes of text."""
    texts = [document.text for document in block.documents]
    flaws = [FLAWS.index(find_broken_rule(text, quality) or "") for text in texts]
    values: dict[str, np.ndarray] = {
        "score": np.asarray(scorer(texts), dtype=np.float32),
        "words": np.array([len(text.split()) for text in texts], dtype=np.int32),
        "flaw": np.array(flaws, dtype=np.uint8),
        "is_domain": np.array([document.label in domain_labels for document in block.documents]),
    }
    path = _path(folder, block.number)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file(values, partial, metadata={"key": block.key})
    partial.rename(path)
    return sum(map(len, texts))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _is_kept(path: Path, block: Block) -> bool:
    if not path.exists():
        return False
    with safe_open(path, framework="numpy") as file:
        if file.metadata()["key"] != block.key:
            raise UserError(
                f"{path.parent}: block {block.number} was scored from other documents, the first of them now {block.documents[0].origin}: "
                "the corpus changed; remove the folder to score it again"
            )
    return True


def _read(folder: Path, count: int) -> Scores:
    columns: dict[str, list[np.ndarray]] = {"score": [], "words": [], "flaw": [], "is_domain": []}
    for number in range(count):
        with safe_open(_path(folder, number), framework="numpy") as file:
            for name, values in columns.items():
                values.append(file.get_tensor(name))
    return Scores(**{name: np.concatenate(values) if values else np.zeros(0) for name, values in columns.items()})
