"""What selecting text costs by the size of the corpus: seconds, MB/s and memory, in one process and in several.

    python -m bench.selection [--megabytes 10 100 1000] [--workers 1 2] [--path FILE ...] [--data DIR] [--json FILE]

A corpus of each size is made of the documents of `--path` (the page that ships unless given), again and again, each with a number of its
own; the classifier is fitted on some of them, every document is scored and checked, and 100,000 words are taken. Every measurement is a
process of its own, whose memory is its largest, children apart.
"""

import json
import resource
import tempfile
import time
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from etude.evaluation.retention import OLD_KNOWLEDGE
from etude.knowledge.documents import Corpus, read_documents
from etude.knowledge.selection import Selection, select
from etude.training.run_folder import environment
from experiments.benchmark import Argument, Benchmark, in_process
from experiments.tables import markdown


def measured(megabytes: list[float], workers: list[int], source: Corpus, data: Path | None) -> dict[str, Any]:
    """Measure each size and number of processes."""
    rows = []
    texts = [document.text for document in read_documents(source, data) if document.text]
    for size in megabytes:
        with tempfile.TemporaryDirectory() as folder:
            made = write(Path(folder), texts, size)
            for number in workers:
                rows.append(made | in_process("bench.selection", "selected", folder, number) | {"workers": number})
    where = environment()
    return {"rows": rows, "hardware": where["processor"], "commit": where["commit"]}


def write(folder: Path, texts: list[str], megabytes: float) -> dict[str, float]:
    """Write a corpus of this size, and examples of a domain."""
    size = count = 0
    with (folder / "corpus.jsonl").open("w", encoding="utf8") as out:
        for number, text in enumerate(cycle(texts)):
            if size >= megabytes * 1e6:
                break
            line = json.dumps({"text": f"Page {number} of them. {text}"}, ensure_ascii=False) + "\n"
            out.write(line)
            size, count = size + len(line.encode()), count + 1
    (folder / "domain.jsonl").write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n in range(20) for text in texts[:5]))
    return {"megabytes": size / 1e6, "documents": count}


def selected(path: str, workers: int) -> dict[str, float]:
    """Measure the seconds of a selection, and the largest memory of this process and of one child."""
    how = Selection(budget_tokens=100_000, min_score=-1e9, workers=workers, similarity=1.0)
    folder = Path(path)
    corpus, domain = Corpus(path=[str(folder / "corpus.jsonl")]), Corpus(path=[str(folder / "domain.jsonl")])
    start = time.perf_counter()
    options: dict[str, Any] = {"count_tokens": lambda texts: [len(text.split()) for text in texts], "questions": {}}
    select(corpus, domain, how, folder / f"selection-{workers}", **options, tell=lambda _: None)
    seconds = time.perf_counter() - start
    own, child = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "memory_bytes": own, "child_memory_bytes": child}


def table(found: Mapping[str, Any]) -> str:
    lines = []
    for row in found["rows"]:
        memory = [f"{row[name] / 2**20:,.0f} MiB" for name in ("memory_bytes", "child_memory_bytes")]
        speed = [f"{row['seconds']:.1f}", f"{row['megabytes'] / row['seconds']:.1f}"]
        lines.append([f"{row['megabytes']:,.0f} MB", f"{row['documents']:,}", str(row["workers"]), *speed, *memory])
    return markdown(["corpus", "documents", "processes", "seconds", "MB/s", "memory", "of a child"], lines, f"{found['hardware']}.")


ARGUMENTS = {
    "megabytes": Argument([10.0, 100.0, 1000.0]),
    "workers": Argument([1, 2]),
    "path": Argument([str(OLD_KNOWLEDGE / "text.txt")], "where the text is from"),
    "data": Argument(None, "the folder of data sets"),
}
BENCHMARK = Benchmark(
    "selection",
    __doc__,
    ARGUMENTS,
    lambda chosen: measured(chosen.megabytes, chosen.workers, Corpus(path=chosen.path, max_words=200), chosen.data),
    table,
)

if __name__ == "__main__":
    BENCHMARK.main()
