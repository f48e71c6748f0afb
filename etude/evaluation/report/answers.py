"""The page of answers that were made of several: of each question the samples, the answer, and how far its inputs agreed on each token.

In: what `etude generate --method` returns. Out: one HTML file without a script; what a model wrote is escaped.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

STEPS = 10
"""Shades of agreement; the last one is none."""


def write_answers(rows: Sequence[Mapping[str, Any]], method: str, model: str, page: Path) -> Path:
    """Write the page of rows with a `decoding`, and return its path."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    contents = {"answers": [_contents(row) for row in rows], "method": method, "model": model, "steps": STEPS}
    text = environment.get_template("answers.html.j2").render(contents)
    page.parent.mkdir(parents=True, exist_ok=True)
    part = page.with_name(page.name + ".part")
    part.write_bytes(text.encode("utf-8", errors="replace"))
    os.replace(part, page)
    return page


def _contents(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the template names of an answer."""
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
