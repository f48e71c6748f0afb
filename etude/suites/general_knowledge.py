"""General knowledge that several suites measure: the shipped questions and text, and the perplexity of a text."""

import math
from pathlib import Path
from typing import Any

from etude.engine.completion import Logprobs
from etude.evaluation.retention import OLD_KNOWLEDGE, make_probe, measure_retention
from etude.evaluation.statistics import mean_interval
from etude.suites.retention_probe import read_text

SHIPPED, ALL = "common knowledge", "all questions"
"""Names of the shipped text and questions, and of all questions of several files together."""
SHIPPED_QUESTIONS = str(OLD_KNOWLEDGE / "questions.jsonl")


def text_of(name: str, data: Path | None) -> str:
    """Read a text file, or the shipped text by its name. Raises UserError for a file that can't be read."""
    return read_text("text", str(OLD_KNOWLEDGE / "text.txt"), None) if name == SHIPPED else read_text("text", name, data)


def perplexity_row(name: str, text: str, suite: Any, tokenizer: Any, logprobs: Logprobs, room: int) -> dict[str, Any]:
    """Measure the perplexity of a text, with its 95 % bootstrap interval over windows, and `windows`, the nats per token of each.

    `suite` has `window_tokens` and `text_tokens`.
    """
    sizes = {"window_tokens": min(suite.window_tokens, room), "text_tokens": suite.text_tokens, "room": room}
    found = measure_retention(make_probe(text, [], tokenizer, **sizes), logprobs)
    low, high = map(math.exp, mean_interval(found["nats"]))
    row = {"part": "text", "name": name, "n": found["row"]["text_tokens"], "value": found["row"]["perplexity"], "low": low, "high": high}
    return row | {"windows": [round(value, 4) for value in found["nats"]]}
