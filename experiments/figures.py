"""Draw a study's rows: one panel a set, two beside each other, one line an arm, greedy accuracy with its 95 % interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_INK, _QUIET, _SECOND = "#1f2a44", "#9aa3b5", "#c2571a"
_COLUMNS = 2


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write an SVG: dots are greedy accuracy, small ones the single seeds, rings pass@8, the dashed line the best trivial baseline."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines = [sets[start : start + _COLUMNS] for start in range(0, len(sets), _COLUMNS)]
    heights = [0.8 + 0.42 * max(sum(row["set"] == name for row in rows) for name in line) for line in lines]
    figure = Figure(figsize=(5.2 * len(lines[0]), 0.3 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(lines), len(lines[0]), squeeze=False, height_ratios=heights).flatten()
    for unused in panels[len(sets) :]:
        unused.remove()
    for axes, name in zip(panels, sets, strict=False):
        own = [row for row in rows if row["set"] == name]
        for place, row in enumerate(own):
            low, high = row["accuracy"] - row["accuracy_low"], row["accuracy_high"] - row["accuracy"]
            seeds = row["accuracy_each_seed"]
            axes.scatter(seeds, [place + 0.22] * len(seeds), s=9, color=_QUIET, zorder=2)
            axes.errorbar(row["accuracy"], place, xerr=[[low], [high]], fmt="o", color=_INK, capsize=3, markersize=5, zorder=3)
            if "pass_at_8" in row:
                axes.scatter(row["pass_at_8"], place, s=34, facecolors="none", edgecolors=_SECOND, zorder=2)
        axes.axvline(max(row["best_baseline"] for row in own), color=_QUIET, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(own)), [row["id"].replace("_", " ") for row in own])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.grid(axis="x", color="#e7e9ee", linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_title(f"{name} (n = {own[0]['n']:,}, {own[0]['seeds']} seed{'s' * (own[0]['seeds'] > 1)})", loc="left", fontsize=10)
    figure.supxlabel(
        "accuracy: dot greedy with 95 % interval, small dots single seeds,\nring pass@8, dashed the best trivial rule", fontsize=8
    )
    return save(figure, path)


def accuracies(axes: Axes, rows: Sequence[Mapping[str, Any]], colours: Sequence[str], title: str) -> None:
    """Draw the accuracy of each row with its interval, a line a row in its colour."""
    for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        error = [[row["accuracy"] - row["accuracy_low"]], [row["accuracy_high"] - row["accuracy"]]]
        axes.errorbar(row["accuracy"], place, xerr=error, fmt="o", color=colour, capsize=3, markersize=5)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    list_rows(axes, [row["id"] for row in rows], title)


def list_rows(axes: Axes, names: Sequence[str], title: str, *, size: float = 10) -> None:
    """Label a line for each name, the first on top, under a title; `size` of the names' letters."""
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=size)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(title, loc="left", fontsize=9)
    axes.grid(axis="x", color="#e7e9ee", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure: text stays text, and the same rows give the same file."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "etude"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
