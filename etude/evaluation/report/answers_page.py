"""The page of `etude generate --method`: for each question the samples, the answer, and the agreement of the inputs on each token.

Input: the rows of `etude generate --method`. Output: one HTML file without a script, in which model texts are escaped.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from etude.evaluation.report.page import write_page

STEPS = 10
"""Shades of agreement; the last one is no colour."""


def write_answers_page(rows: Sequence[Mapping[str, Any]], method: str, model: str, page: Path) -> Path:
    """Write the page of rows with a `decoding`; returns its path."""
    contents = {"answers": [_contents(row) for row in rows], "method": method, "model": model, "steps": STEPS}
    return write_page("answers.html.j2", contents, page)


def _contents(row: Mapping[str, Any]) -> dict[str, Any]:
    """Collect an answer's contents for the template."""
    facts = row["decoding"]
    shares = facts["agreement"]
    tokens = [
        {"text": text, "shade": STEPS if share is None else min(STEPS, int(STEPS * share + 1e-9)), "share": share}
        for text, share in zip_longest(facts["tokens"], shares)
    ]
    return {
        "question": row["prompt"],
        "text": row["completions"][0] if row["completions"] else None,
        "tokens": tokens if shares else [],
        "samples": facts["samples"],
        "mean": sum(shares) / len(shares) if shares else None,
        "confidence": facts["confidence"],
        "sampled_tokens": facts["sampled_tokens"],
        "notes": facts["notes"],
    }
