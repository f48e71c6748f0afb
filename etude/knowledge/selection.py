"""Data selection: selects a domain's documents from a general corpus, and general ones for replay.

    sample the corpus → fit a scorer (domain against corpus) → score and filter every document → take the best until the budget is full,
    without near-duplicates and contamination → take random general documents the same way

after TRAIT (2024.emnlp-main.1162): in-domain text selected by a classifier, filtered by quality, with general text as replay. TRAIT takes
all documents above a threshold; here the best are taken up to `budget_tokens`, and nothing below `min_score`.

    scorer.safetensors    the fitted scorer
    blocks/               the scores of every document (`etude.knowledge.scoring`)
    selected.jsonl        text, heading, origin, score and tokens of the selected documents, in the corpus's order
    replay.jsonl          the same for general documents
    selection.json        what was selected and left out, and why; precision and recall if labels mark the domain

Every file appears by one rename; a killed run resumes without repeating work. `selection.json` is written last.
"""

import hashlib
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from etude.errors import UserError, at_least, check_known
from etude.evaluation.statistics import wilson_interval
from etude.files import write_atomically
from etude.knowledge.budget import BudgetFiller, CountTokens
from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.documents import Corpus, Document, read_documents
from etude.knowledge.duplicates import NearDuplicateIndex
from etude.knowledge.grading import DocumentGrader
from etude.knowledge.quality import Quality
from etude.knowledge.scorers import METHODS, ConstantScorer, LinearScorer, RandomScorer, Scorer, fit, threshold_at_recall
from etude.knowledge.scoring import FLAWS, Scores, score_all
from etude.randomness import seed_for

_EVERY_SECONDS = 10


@dataclass(frozen=True)
class Selection:
    """Settings of data selection."""

    method: str = "classifier"
    """classifier, importance, perplexity, random (control), or all (the whole corpus is in-domain)."""
    budget_tokens: int = 1_000_000
    """Most tokens to select."""
    min_score: float | None = None
    """Least score of a selected document; null = the score that a share `found` of held-out examples reaches, no limit for random and all.
    """
    found: float = 0.95
    """Recall of that default: share of held-out domain examples (a fifth is held out) that it keeps, in (0, 1]."""
    samples: int = 2000
    """Most documents of the domain and of the corpus that the scorer is fitted on."""
    quality: Quality = field(default_factory=Quality)
    similarity: float = 0.8
    """Jaccard similarity (word 5-grams) from which a near-duplicate is left out, in (0, 1]; 1 = only one with the same words."""
    leak_share: float = 0.5
    """Documents with at least this share of an evaluation question's n-grams are left out, in (0, 1]."""
    replay_tokens: int = 0
    """Tokens of general text to keep for replay, sampled from what passes the rules and was not selected; 0 = none."""
    domain_labels: list[str] = field(default_factory=list)
    """Values of `label_column` that mark in-domain documents; they measure the selection and select nothing."""
    workers: int = 1
    """Processes that score; 0 = score in the main process."""
    block_bytes: int = 4_000_000
    """Bytes of text that are scored and saved at once."""

    def check(self, name: str) -> None:
        """Raise UserError for an unknown method and for numbers out of range."""
        check_known(f"{name}.method", self.method, METHODS)
        at_least(f"{name}.budget_tokens", self.budget_tokens, 1)
        at_least(f"{name}.samples", self.samples, 10)
        at_least(f"{name}.replay_tokens", self.replay_tokens, 0)
        at_least(f"{name}.workers", self.workers, 0)
        at_least(f"{name}.block_bytes", self.block_bytes, 1)
        for setting in ("found", "similarity", "leak_share"):
            if not 0 < getattr(self, setting) <= 1:
                raise UserError(f"{name}.{setting} must be above 0 and at most 1, got {getattr(self, setting)}")
        self.quality.check(f"{name}.quality")


def check_packages() -> None:
    """Raise UserError if a package that selection needs is not installed."""
    if not all(map(find_spec, ("sklearn", "datasketch"))):
        raise UserError("selection needs scikit-learn and datasketch: pip install 'etude[knowledge]'")


def select(
    corpus: Corpus,
    domain: Corpus,
    settings: Selection,
    folder: Path,
    *,
    count_tokens: CountTokens,
    questions: Mapping[str, str],
    seed: int = 0,
    data: Path | None = None,
    scorer: Callable[[], Scorer] | None = None,
    grading: DocumentGrader | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Select documents into `folder`, or resume there; returns the content of `selection.json`.

    `domain` holds examples of the domain, `questions` (by name) those that must not be in the text. `scorer` creates the scorer of method
    perplexity, which scores in this process. `grading` grades documents to select, but not those for replay. Raises UserError if nothing
    can be selected, or if the folder holds a selection with other settings.
    """
    done = folder / "selection.json"
    described = {"corpus": asdict(corpus), "domain": asdict(domain), "how": asdict(settings), "seed": seed, "questions": _hash(questions)}
    described |= {"grader": {name: getattr(grading.settings, name) for name in ("model", "min_grade", "max_characters")}} if grading else {}
    facts = json.loads(json.dumps(described))
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        _check_same(found["settings"], facts, folder)
        return found
    _keep_settings(folder, facts)
    fitted, least = _load_or_fit_scorer(corpus, domain, settings, folder, seed, data, scorer() if scorer else None)
    workers = 0 if scorer else settings.workers
    work: dict[str, Any] = {"domain_labels": settings.domain_labels, "workers": workers, "block_bytes": settings.block_bytes}
    scores = score_all(read_documents(corpus, data), fitted, settings.quality, folder / "blocks", tell=_progress(tell), **work)
    filler = BudgetFiller(
        corpus, data, scores, ContaminationCheck(questions, settings.leak_share), NearDuplicateIndex(settings.similarity), count_tokens
    )
    usable = scores.flaw == 0
    of_domain = np.flatnonzero(usable & (scores.score >= least))
    best = of_domain[np.argsort(-scores.score[of_domain], kind="stable")]
    taken = filler.fill(best, settings.budget_tokens, folder / "selected.jsonl", grading)
    if not taken:
        raise UserError(_explain_empty(scores, least, settings, filler))
    spoken_for = [*filler.considered, *(of_domain if np.isfinite(least) else ())]
    general = np.setdiff1d(np.flatnonzero(usable), spoken_for)
    order = np.random.default_rng(seed_for(seed, "replay text")).permutation(general)
    replayed = filler.fill(order, settings.replay_tokens, folder / "replay.jsonl")
    graded = {"grades": grading.report()} if grading else {}
    report = _report(scores, least, filler, taken, replayed, settings) | graded | {"settings": facts}
    write_atomically(done, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def _hash(questions: Mapping[str, str]) -> str:
    """Return a hash of the questions."""
    return hashlib.blake2b(json.dumps(sorted(questions.items())).encode(), digest_size=8).hexdigest()


def _keep_settings(folder: Path, facts: Mapping[str, Any]) -> None:
    """Save the settings of a new selection, or check that a resumed one has the same."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "settings.json"
    if kept.exists():
        _check_same(json.loads(kept.read_text()), facts, folder)
    else:
        write_atomically(kept, json.dumps(facts, indent=1) + "\n")


def _progress(tell: Callable[[str], None]) -> Callable[[int], None]:
    """Return a function that adds up scored bytes and reports them every ten seconds."""
    start = said = time.monotonic()
    total = 0

    def scored(size: int) -> None:
        nonlocal said, total
        total += size
        now = time.monotonic()
        if now - said >= _EVERY_SECONDS:
            tell(f"scored {total / 1e6:,.0f} MB, {total / 1e6 / (now - start):.1f} MB/s")
            said = now

    return scored


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    changed = [name for name in now if name != "how" and before.get(name) != now[name]]
    changed += [f"how.{name}" for name, value in now["how"].items() if name != "workers" and before["how"].get(name) != value]
    if changed:
        raise UserError(f"{folder} holds a selection of other settings ({', '.join(changed)}): remove it, or name another folder")


def _load_or_fit_scorer(
    corpus: Corpus, domain: Corpus, settings: Selection, folder: Path, seed: int, data: Path | None, given: Scorer | None
) -> tuple[Scorer, float]:
    """Return the scorer (given, saved or newly fitted) and the minimum score of selected documents."""
    if settings.method in ("random", "all"):
        unfitted = RandomScorer(seed) if settings.method == "random" else ConstantScorer()
        return unfitted, -np.inf if settings.min_score is None else settings.min_score
    kept = folder / "scorer.safetensors"
    if given is not None:
        if settings.min_score is not None:
            return given, settings.min_score
        scorer, least = given, threshold_at_recall(given, _examples(domain, data, settings.samples, seed)[0], settings.found)
    elif kept.exists():
        scorer, least = (fitted := LinearScorer.load(kept)), fitted.threshold
    else:
        held_out, examples = _examples(domain, data, settings.samples, seed)
        others = _sample(read_documents(corpus, data), settings.samples, seed, "corpus")
        if len(others) < 2:
            raise UserError(f"the corpus has {len(others)} documents with text: give at least 2 to tell the domain from")
        fitted = fit(settings.method, examples, held_out, others, settings.found, seed_for(seed, "scorer"))
        fitted.save(partial := kept.with_name(kept.name + ".partial"))
        partial.rename(kept)
        scorer, least = fitted, fitted.threshold
    return scorer, least if settings.min_score is None else settings.min_score


def _examples(domain: Corpus, data: Path | None, samples: int, seed: int) -> tuple[list[str], list[str]]:
    """Return a fifth of the domain's examples, held out, and the others."""
    examples = _sample(read_documents(domain, data), samples, seed, "domain")
    if len(examples) < 10:
        raise UserError(f"the examples of the domain are {len(examples)} documents with text: give at least 10")
    return examples[: len(examples) // 5], examples[len(examples) // 5 :]


def _sample(source: Iterable[Document], count: int, seed: int, name: str) -> list[str]:
    """Sample `count` texts uniformly, in the order of their hashes, independently of other samples."""
    keyed = ((seed_for(seed, name, document.origin), document.text) for document in source if document.text)
    return [text for _, text in heapq.nsmallest(count, keyed)]


def _explain_empty(scores: Scores, least: float, settings: Selection, filler: BudgetFiller) -> str:
    flaws, below = _count_broken_rules(scores), int(((scores.flaw == 0) & (scores.score < least)).sum())
    worst = f" (most: {max(flaws, key=lambda name: flaws[name])})" if flaws else ""
    return (
        f"nothing was selected: of {len(scores.score)} documents {sum(flaws.values())} break a rule{worst}, {below} score below "
        f"{least:.3g}, {len(filler.contaminated)} hold a question that is asked, {len(filler.duplicates)} are copies, and the others are "
        f"longer than budget_tokens {settings.budget_tokens}: give other examples, a lower min_score, fewer rules or a larger budget"
    )


def _count_broken_rules(scores: Scores) -> dict[str, int]:
    """Count the documents that break each rule."""
    counts = Counter(scores.flaw.tolist())
    return {FLAWS[number]: counts[number] for number in sorted(counts) if number}


def _report(
    scores: Scores, least: float, filler: BudgetFiller, taken: Mapping[int, int], replayed: Mapping[int, int], settings: Selection
) -> dict[str, Any]:
    judged = {"judged": _precision_and_recall(scores.is_domain, list(taken))} if settings.domain_labels else {}
    return judged | {
        "documents": len(scores.score),
        "words": int(scores.words.sum()),
        "flaws": _count_broken_rules(scores),
        "least": least if np.isfinite(least) else None,
        "above_least": int(((scores.flaw == 0) & (scores.score >= least)).sum()),
        "considered": len(filler.considered),
        "copies": filler.duplicates,
        "leaks": filler.contaminated,
        "unchecked_questions": filler.contamination.unchecked,
        "selected": {"documents": len(taken), "tokens": sum(taken.values())},
        "replay": {"documents": len(replayed), "tokens": sum(replayed.values())},
    }


def _precision_and_recall(is_domain: np.ndarray, taken: list[int]) -> dict[str, float]:
    """Return precision and recall of the selected documents by their labels."""
    right, found = int(is_domain[taken].sum()), dict[str, float]()
    for name, n in (("precision", len(taken)), ("recall", int(is_domain.sum()))):
        if n:
            low, high = wilson_interval(right, n)
            found |= {name: right / n, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}
    return found
