"""Pictures of search trees: computes the geometry, which the template renders, escapes and styles as SVG.

A tree grows to the right, one column for each step; finished answers are stacked. A node's colour is the mean value below it, on a scale
from 0 to 1, or over the tree's range if some values are outside. A line's width is the number of continuations through it.
"""

from collections.abc import Mapping
from contextlib import suppress
from math import sqrt
from typing import Any

from etude.evaluation.report.attempts import clip, outcome_of
from etude.evaluation.report.number_format import is_number
from etude.evaluation.report.run_folder import Run

_COLUMN, _ROW, _MARGIN, _LETTERS = 190, 34, 16, 27
_MAX_TEXT = 600


def tree_pictures(run: Run) -> list[dict[str, Any]]:
    """Build a picture of each tree that the run kept for its page; damaged trees are skipped."""
    found = []
    for tree in run.trees:
        with suppress(ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            found.append(_picture(tree))
    return found


def _picture(tree: Mapping[str, Any]) -> dict[str, Any]:
    nodes = {node["number"]: node for node in tree["nodes"]}
    children: dict[int, list[int]] = {number: [] for number in nodes}
    for number, node in nodes.items():
        if node["parent"] is not None:
            children[node["parent"]].append(number)
    (root,) = (number for number, node in nodes.items() if node["parent"] is None)
    depth, height = {root: 0}, dict[int, float]()
    leaves = 0
    order = list(nodes)  # in preorder, as they were written
    for number in order[1:]:
        depth[number] = depth[nodes[number]["parent"]] + 1
    for number in order:
        if not children[number]:
            height[number] = leaves
            leaves += 1
    for number in reversed(order):
        if children[number]:
            height[number] = (height[children[number][0]] + height[children[number][-1]]) / 2
    at = {number: (_MARGIN + depth[number] * _COLUMN, _MARGIN + height[number] * _ROW) for number in order}
    most = max(node["drawn"] or 1 for node in nodes.values())
    means = [mean for node in nodes.values() if is_number(mean := _mean(node))]
    low, high = (0.0, 1.0) if all(0 <= mean <= 1 for mean in means) else (min(means), max(means))
    return {
        "step": tree.get("step"),
        "question": clip(tree.get("question"), _MAX_TEXT),
        "answer": clip(tree.get("answer"), _MAX_TEXT),
        "width": 2 * _MARGIN + (max(depth.values()) + 1) * _COLUMN,
        "height": 2 * _MARGIN + max(0, leaves - 1) * _ROW + 14,
        "edges": [
            {"path": _curve(at[node["parent"]], at[number]), "width": round(1 + 4 * sqrt((node["drawn"] or 1) / most), 2)}
            for number, node in nodes.items()
            if node["parent"] is not None
        ],
        "nodes": [_drawn(nodes[number], *at[number], low, high) for number in order],
        "label": f"A tree of {len(nodes)} nodes: {sum(bool(node['finish']) for node in nodes.values())} answers ended.",
    }


def _mean(node: Mapping[str, Any]) -> Any:
    return node["value"] if node.get("finish") else node.get("mean")


def _drawn(node: Mapping[str, Any], x: float, y: float, low: float, high: float) -> dict[str, Any]:
    text, mean = clip(node.get("text"), _MAX_TEXT), _mean(node)
    facts = [f"sampled {node['drawn']} times, {node['tokens']} tokens"] if node["parent"] is not None else ["the prompt"]
    facts += [f"mean value {mean:.2f} of {node['visits']} visits"] if is_number(mean) else ["no value"]
    short = " ".join(text.split())
    return {
        "x": x,
        "y": round(y, 1),
        "fill": round((mean - low) / (high - low), 3) if is_number(mean) and high > low else 0,
        "outcome": outcome_of({**node, "score": node.get("value")}) if node.get("finish") else None,
        "label": short if len(short) <= _LETTERS else f"{short[: _LETTERS - 1]}…",
        "title": f"{text}\n({'; '.join(facts)})",
    }


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    middle = (start[0] + end[0]) / 2
    return f"M{start[0]:.1f},{start[1]:.1f} C{middle:.1f},{start[1]:.1f} {middle:.1f},{end[1]:.1f} {end[0]:.1f},{end[1]:.1f}"
