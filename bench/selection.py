"""What selecting text costs by the size of the corpus: seconds, MB/s and memory, in one process and in several.

    python -m bench.selection [--megabytes 10 100 1000] [--workers 1 2] [--path FILE ...] [--data DIR] [--json FILE]

A corpus of each size is made of the documents of `--path` (the page that ships unless given), again and again, each with a number of its
own; the classifier is fitted on some of them, every document is scored and checked, and 100,000 words are taken. Every measurement is a
process of its own, whose memory is its largest, children apart.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

from bench import written
from etude.evaluation.retention import OLD_KNOWLEDGE
from etude.knowledge.documents import Corpus, read_documents
from etude.knowledge.selection import Selection, select
from etude.training.run_folder import environment


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.selection", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--path", nargs="+", default=[str(OLD_KNOWLEDGE / "text.txt")], help="where the text is from")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(selected(Path(chosen.one), chosen.workers[0])))
        return
    found = measured(chosen.megabytes, chosen.workers, Corpus(path=chosen.path, max_words=200), chosen.data)
    print(table(found))
    if chosen.json:
        written.write(found, chosen.json, table(found))


def measured(megabytes: list[float], workers: list[int], source: Corpus, data: Path | None) -> dict[str, Any]:
    """A row for each size and number of processes."""
    rows = []
    texts = [document.text for document in read_documents(source, data) if document.text]
    for size in megabytes:
        with tempfile.TemporaryDirectory() as folder:
            made = write(Path(folder), texts, size)
            for number in workers:
                command = [sys.executable, "-m", "bench.selection", "--one", folder, "--workers", str(number)]
                ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                rows.append(made | json.loads(ended.stdout.splitlines()[-1]) | {"workers": number})
    where = environment()
    return {"rows": rows, "hardware": where["processor"], "commit": where["commit"]}


def write(folder: Path, texts: list[str], megabytes: float) -> dict[str, float]:
    """A corpus of this size, and examples of a domain."""
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


def selected(folder: Path, workers: int) -> dict[str, float]:
    """Seconds of a selection, and the largest memory of this process and of one child."""
    how = Selection(budget_tokens=100_000, min_score=-1e9, workers=workers, similarity=1.0)
    corpus, domain = Corpus(path=[str(folder / "corpus.jsonl")]), Corpus(path=[str(folder / "domain.jsonl")])
    start = time.perf_counter()
    options: dict[str, Any] = {"count_tokens": lambda texts: [len(text.split()) for text in texts], "questions": {}}
    select(corpus, domain, how, folder / f"selection-{workers}", **options, tell=lambda _: None)
    seconds = time.perf_counter() - start
    own, child = (resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "memory_bytes": own, "child_memory_bytes": child}


def table(found: dict[str, Any]) -> str:
    lines = ["| corpus | documents | processes | seconds | MB/s | memory | of a child |", "|---|---|---|---|---|---|---|"]
    for row in found["rows"]:
        memory = " | ".join(f"{row[name] / 2**20:,.0f} MiB" for name in ("memory_bytes", "child_memory_bytes"))
        speed = f"{row['seconds']:.1f} | {row['megabytes'] / row['seconds']:.1f}"
        lines.append(f"| {row['megabytes']:,.0f} MB | {row['documents']:,} | {row['workers']} | {speed} | {memory} |")
    return "\n".join([*lines, "", f"{found['hardware']}.", ""])


if __name__ == "__main__":
    main()
