"""Are a textbook's pages found in ten times as much other text? Ways to score documents, at the same budget.

    python -m studies.selection --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

Sections of an anatomy textbook are hidden in ten times as much text of other kinds (novels and stories, meetings, abstracts on aerodynamics
and on medicine, reviews, biographies, word problems), by another draw for each seed; twenty other sections are the examples. Every way
takes the best documents until it has as many tokens as are hidden, so that precision and recall are nearly the same number, and the perfect
selection has 100 % of both, but for documents that break a rule of quality. Questions and thresholds are left out: this is about scores.

Claim: the classifier finds at least 90 % of what is hidden (lower end of the interval), and more than importance weights, the perplexity of
SmolLM2-135M and random numbers do (paired over hidden documents, 95 %).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from etude.device.machine import Machine, resolve_device
from etude.errors import UserError
from etude.files import read_jsonl, write_atomically
from etude.knowledge.documents import Corpus, read_documents
from etude.knowledge.scorers import METHODS, Scorer
from etude.knowledge.selection import Selection, select
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.recipes.perplexity import Perplexity
from etude.tasks.files import file_rows
from etude.training.run_folder import environment
from experiments.cells import Cell, Options, Table, compute
from experiments.figures import list_rows, save
from experiments.measures import Verdict, decided, gain, in_points, lacking, share, undecided
from experiments.runs import over_runs
from experiments.study import Found, Study
from experiments.tables import Column, Row, each, each_over_runs, interval, percent, points, seeds_of, table

CLAIM = "the classifier finds at least 90 % of hidden pages at a budget of as many tokens, and more than importance, perplexity and random"
SEEDS = (70, 71, 72)
ARMS = tuple(method for method in METHODS if method != "all")
TIMES, EXAMPLES = 10, 20
"""How much other text there is for what is hidden, and sections of examples."""
DOMAIN = "anatomy"
SECTIONS = ("openstax_anatomy/text_1.jsonl", "openstax_anatomy/text_2.jsonl")
Texts = Iterator[tuple[str, str]]


def _rows(path: Path, text: Callable[[Mapping[str, Any]], str]) -> Iterator[str]:
    return (text(row) for _, row in file_rows(path))


def others(data: Path) -> Texts:
    """Yield kind and text of everything that is not of the domain."""
    rows: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
        "stories": ("squality/*.jsonl", lambda row: row["document"]),
        "meetings": (
            "qmsum/val.jsonl",
            lambda row: "\n\n".join(f"{turn['speaker']}: {turn['content']}" for turn in row["meeting_transcripts"]),
        ),
        "medicine": ("pubmedqa/*.jsonl", lambda row: "\n\n".join(row["contexts"])),
        "reviews": ("opinosis/*.jsonl", lambda row: "\n".join(row["sentences"])),
        "biographies": ("factscore_bios/*.jsonl", lambda row: row["output"] or ""),
        "word problems": ("gsm8k/train.jsonl", lambda row: f"{row['question']}\n{row['answer']}"),
    }
    for path in sorted((data / "gutenberg_books").glob("*.md")):
        yield "novels", path.read_text(encoding="utf8")
    for abstract in (data / "cranfield/cran.all.1400").read_text().split("\n.W\n")[1:]:
        yield "aerodynamics", abstract.split("\n.I ")[0]
    for kind, (pattern, text) in rows.items():
        for path in sorted(data.glob(pattern)):
            yield from ((kind, found) for found in _rows(path, text))


def tiny_texts() -> tuple[list[str], Texts]:
    """Return sections and other text in seconds."""
    parts = ("heart", "artery", "vein", "valve", "muscle", "bone", "nerve")
    page = "The {} lies beside the {} and is joined with it by tissue of the body, which has the number {} in the book of its parts."
    sections = [page.format(parts[number % 7], parts[number * 3 % 5], number) for number in range(30)]
    ship = "The ship went to the island of number {}, and the captain of it was happy with that and with his crew for a day."
    return sections, (("novels", ship.format(number)) for number in range(100))


def hide(sections: Sequence[str], other: Texts, seed: int, folder: Path, times: int) -> None:
    """Write `corpus.jsonl`, other texts with a `times`-th as much of the sections among them, and `domain.jsonl`, the examples."""
    rows = [{"text": text, "kind": kind} for kind, text in other]
    order = np.random.default_rng(seed_for(seed, "hide")).permutation(len(sections))
    sizes = accumulate(len(sections[place]) for place in order)
    room = sum(len(row["text"]) for row in rows) / times
    count = sum(size <= room for size in sizes)
    rows += [{"text": sections[place], "kind": DOMAIN} for place in order[:count]]
    examples = order[count : count + EXAMPLES]
    if len(examples) < EXAMPLES:
        raise UserError(f"{len(sections)} sections are too few for {room:,.0f} characters to hide and {EXAMPLES} examples")
    mixed = np.random.default_rng(seed_for(seed, "mix")).permutation(len(rows))
    for name, chosen in (("corpus", [rows[place] for place in mixed]), ("domain", [{"text": sections[place]} for place in examples])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen), encoding="utf8")


class Once:
    """A scorer whose scores are kept in a file: the draws share most of their texts, and a text is as likely in each of them."""

    def __init__(self, make: Callable[[], Scorer], path: Path) -> None:
        self._scorer, self._path = make(), path
        self._known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        keys = [sha256(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            self._known |= zip(new, self._scorer(list(new.values())).tolist(), strict=True)
            write_atomically(self._path, json.dumps(self._known))
        return np.array([self._known[key] for key in keys], dtype=np.float32)


class Hidden(Table):
    """A cell for every way and draw."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else "smollm2-135m"

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return {"times": TIMES, "examples": EXAMPLES, "model": self.model, "selection": asdict(self._selection(arm, 1))}

    def _selection(self, arm: str, budget_tokens: int) -> Selection:
        workers = 0 if self.is_tiny or arm == "perplexity" else 2
        return Selection(method=arm, budget_tokens=budget_tokens, min_score=-1e12, domain_labels=[DOMAIN], workers=workers)

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Select from one draw; return what was taken, and which of the hidden documents are among it, as 0s and 1s."""
        folder = chosen.out / "runs" / f"{arm}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_tiny:
            sections, other = tiny_texts()
        else:
            assert chosen.data is not None
            sections = [text for path in SECTIONS for text in _rows(chosen.data / path, lambda row: row["text"])]
            other = others(chosen.data)
        hide(sections, other, seed, folder, TIMES)
        _, tokenizer = load_model(self.model)
        corpus = Corpus(path=[str(folder / "corpus.jsonl")], label_column="kind")
        hidden = {document.origin: document.text for document in read_documents(corpus) if document.label == DOMAIN}

        def count_tokens(texts: Sequence[str]) -> list[int]:
            return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

        how = self._selection(arm, sum(count_tokens(list(hidden.values()))))
        scorer = None
        if arm == "perplexity":
            likely = partial(Perplexity, self.model, resolve_device(Machine()), Machine())
            scorer = partial(Once, likely, chosen.out / "runs" / "perplexity.json")
        domain = Corpus(path=[str(folder / "domain.jsonl")])
        report = select(corpus, domain, how, folder / "selection", count_tokens=count_tokens, questions={}, seed=seed, scorer=scorer)
        taken = {row["origin"] for row in read_jsonl(folder / "selection" / "selected.jsonl")}
        facts = environment()
        return {
            "commit": facts["commit"],
            "hardware": facts["processor"],
            "found": "".join(str(int(origin in taken)) for origin in hidden),
            **{name: report[name] for name in ("documents", "words", "flaws", "selected", "judged")},
            "copies": len(report["copies"]),
        }


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for each way: precision and recall over the documents of all seeds, and what the classifier finds more."""
    rows = []
    for arm in ARMS:
        own = [cell for cell in cells if cell["id"] == arm]
        if not own:
            continue
        bits = "".join(cell["found"] for cell in own)
        taken = sum(cell["selected"]["documents"] for cell in own)
        row: dict[str, Any] = {"id": arm, "set": DOMAIN, "n": len(bits), "seeds": len(own), "taken": taken}
        for name, n in (("recall", len(bits)), ("precision", taken)):
            row |= share(name, bits.count("1"), n)
        row["recall_each_seed"] = [cell["judged"]["recall"] for cell in own]
        row["documents"] = sum(cell["documents"] for cell in own)
        rows.append(row | _behind(cells, arm))
    return rows


def _behind(cells: Sequence[Cell], arm: str) -> dict[str, Any]:
    """Return how much more of what is hidden the classifier finds, over the seeds that both have."""
    found = {(cell["id"], cell["seed"]): cell["found"] for cell in cells}
    seeds = [seed for own, seed in found if own == arm and ("classifier", seed) in found]
    if arm == "classifier" or not seeds:
        return {}
    own, its = ([bit == "1" for seed in seeds for bit in found[name, seed]] for name in (arm, "classifier"))
    each = [found["classifier", seed].count("1") - found[arm, seed].count("1") for seed in seeds]
    shares = [more / len(found[arm, seed]) for more, seed in zip(each, seeds, strict=True)]
    return gain("classifier_ahead", own, its) | over_runs("classifier_ahead", shares)


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {row["id"]: row for row in rows}
    if missing := lacking(found, ARMS, len(SEEDS)):
        return undecided(missing)
    said = ", ".join(f"{arm} {in_points(found[arm], 'classifier_ahead', sign='')}" for arm in ARMS[1:])
    recall = in_points(found["classifier"], "recall", sign="", unit=" %")
    is_ahead = min(found[arm]["classifier_ahead_low"] for arm in ARMS[1:]) > 0
    return decided(found["classifier"]["recall_low"] >= 0.9 and is_ahead, f"it finds {recall}, points ahead of {said}")


TABLE = (
    Column("way", itemgetter("id")),
    Column("found of what is hidden", interval("recall", percent)),
    Column("recall per seed", each("recall_each_seed", percent)),
    Column("right of what is taken", interval("precision", percent)),
    Column("classifier minus way [documents]", interval("classifier_ahead", points)),
    Column("per seed [seeds]", each_over_runs("classifier_ahead", points)),
)


def show(rows: Sequence[Row]) -> str:
    """Write one line a way."""
    below = (
        f"{rows[0]['n']:,} hidden documents among {rows[0]['documents']:,}, {seeds_of(rows)}; 95 % intervals: over documents, [seeds] "
        "over seeds (t)."
    )
    return table(rows, TABLE, below)


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: recall of every way with its interval, small dots the single seeds."""
    figure = Figure(figsize=(6.2, 0.9 + 0.45 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        error = [[row["recall"] - row["recall_low"]], [row["recall_high"] - row["recall"]]]
        axes.scatter(row["recall_each_seed"], [place + 0.22] * row["seeds"], s=9, color="#9aa3b5")
        axes.errorbar(row["recall"], place, xerr=error, fmt="o", color="#1f2a44", capsize=3, markersize=5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    list_rows(axes, [row["id"] for row in rows], "hidden pages found, at a budget of as many tokens as are hidden")
    return save(figure, path)


def find(chosen: Options) -> Found:
    cells = compute([(arm, seed) for seed in SEEDS for arm in ARMS], Hidden(chosen.is_tiny), chosen)
    rows = reduce(cells)
    return cells, rows, judge(rows)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="openstax_anatomy and the other texts",
    rule="the classifier's recall is >= 90 % and its lead on each other way above 0, each by the whole 95 % interval over documents: "
    "nothing is trained from a random start, and seeds choose what is hidden",
    about="this textbook",
)

if __name__ == "__main__":
    STUDY.main()
