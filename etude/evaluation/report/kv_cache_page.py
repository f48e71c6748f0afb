"""The page of a KV-cache policy: the tokens of a long text that it keeps or reads, by layer and head, with memory and time by length.

Input: the result of `etude evaluate --suite long`, and the tokens kept for some tasks. Output: one HTML file without a script, in which
model texts are escaped.

Shapes: L layers, H key/value heads, T tokens.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from etude.evaluation.report.axes import BOTTOM, LEFT, RIGHT, TOP, scale, tick_label, ticks_of
from etude.evaluation.report.page import write_page

STEPS = 10
"""Number of shades of the kept share."""
WIDEST = 1200
"""Maximum number of columns of a picture; in a longer text, several tokens are averaged in a column."""


@dataclass(frozen=True)
class ShownTask:
    """A task on the page."""

    kind: str
    item: Mapping[str, Any]
    """Question, answers, texts and scores."""
    pieces: Sequence[str]
    """The text's tokens, as text."""
    share_LHT: np.ndarray
    """For each token by layer and head: 1 if it is kept, or how often it was read."""


def write_kv_cache_page(result: Mapping[str, Any], shown: Sequence[ShownTask], page: Path, *, reads: bool) -> Path:
    """Write the page and return its path; with `reads` nothing is evicted, and shares count how often a token was read."""
    contents = {
        "model": Path(result["model"]).name,
        "view": result["view"],
        "rows": result["rows"],
        "reads": reads,
        "steps": STEPS,
        "charts": list(
            filter(
                None,
                [
                    _chart("tokens in the cache", "tokens", result["rows"]),
                    _chart("time per token", "token_seconds", result["rows"], "ms", 1000),
                ],
            )
        ),
        "shown": [_contents(each) for each in shown],
    }
    return write_page("kv_cache.html.j2", contents, page)


def _contents(each: ShownTask) -> dict[str, Any]:
    """Collect a task's contents for the template; consecutive tokens of the same shade are one piece."""
    share_T = each.share_LHT.mean((0, 1))
    shades = np.minimum(STEPS, (STEPS * share_T + 0.5).astype(int)).tolist()
    pieces = [
        {"text": "".join(text for text, _ in own), "shade": shade}
        for shade, own in groupby(zip(each.pieces, shades, strict=True), key=lambda pair: pair[1])
    ]
    layers, heads, tokens = each.share_LHT.shape
    return {
        "kind": each.kind,
        "item": each.item,
        "pieces": pieces,
        "layers": layers,
        "heads": heads,
        "tokens": tokens,
        "share": float(share_T.mean()),
        "by_layer": [float(value) for value in each.share_LHT.mean((1, 2))],
        "picture": _picture(each.share_LHT.reshape(layers * heads, tokens)),
    }


def _picture(share_RT: np.ndarray) -> str:
    """Render a PNG in base64 with a row for each head and a column for each token."""
    from matplotlib.image import imsave

    wide = -(-share_RT.shape[1] // WIDEST)
    padded = np.pad(share_RT, ((0, 0), (0, -share_RT.shape[1] % wide)), mode="edge")
    binned = padded.reshape(len(share_RT), -1, wide).mean(2)
    file = BytesIO()
    imsave(file, binned, cmap="magma", vmin=0, vmax=1, format="png")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _chart(title: str, name: str, rows: Sequence[Mapping[str, Any]], unit: str = "", factor: float = 1) -> dict[str, Any] | None:
    """Chart the full cache's and the policy's mean over kinds against length; None for one length, or if a value is missing."""
    lengths = sorted({row["tokens"] for row in rows})
    if len(lengths) < 2 or any(row[f"{way}_{name}"] is None for row in rows for way in ("full", "view")):
        return None
    lines = [
        [factor * float(np.mean([row[f"{way}_{name}"] for row in rows if row["tokens"] == length])) for length in lengths]
        for way in ("full", "view")
    ]
    ticks = ticks_of(0.0, max(map(max, lines)))
    across, up = scale(0, lengths[-1], LEFT, RIGHT), scale(ticks[0], ticks[-1], BOTTOM, TOP)
    return {
        "title": title,
        "unit": unit,
        "x_ticks": [(across(length), f"{length:,}") for length in lengths],
        "y_ticks": [(up(tick), tick_label(tick, ticks[1] - ticks[0], False)) for tick in ticks],
        "lines": [" ".join(f"{across(length):.1f},{up(value):.1f}" for length, value in zip(lengths, line, strict=True)) for line in lines],
    }
