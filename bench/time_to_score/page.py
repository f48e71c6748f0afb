"""How `bench.time_to_score` is shown: the runs and their ratios as tables, the curves as a picture."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure

from bench.time_to_score.curves import rising
from etude.renamed import renamed_settings
from etude.settings.configuration import flatten
from experiments.figures import save
from experiments.runs import run_interval
from experiments.tables import markdown
from experiments.turns import OURS

_COLOURS = {OURS: "#c2571a", "trl-tuned": "#1f2a44", "trl-float32": "#9aa3b5", "etude-recomputed": "#2e7d5b"}
_STYLES = ("-", "--", ":", "-.")
_MANY = 6
"""Seeds that have a line each."""


def table(found: Mapping[str, Any]) -> str:
    """Write one line a run, one line a comparison, and the figure."""
    head = ["practice", "seed", "steps", "seconds a step", "seconds", "score", "greedy"]
    against = ["against", "seed", "its gain", "score at half of it", f"{OURS}, seconds", "peer, seconds", f"peer / {OURS}", "lead"]
    ratios = [f"{peer} takes {ratio:.2f} times as long as {OURS}" for peer, ratio in found["ratios"].items() if ratio is not None]
    figure = f"The figure, median of the seeds: {', '.join(ratios)}. " if ratios else ""
    below = "\n".join([figure + _conditions(found), *found["remarks"]])
    if _are_many(found):
        runs, rows = _runs(found["curves"]), [_comparisons(peer, each) for peer, each in found["compared"].items()]
    else:
        runs, rows = list(map(_run, found["curves"])), [_comparison(peer, row) for peer, each in found["compared"].items() for row in each]
    if not rows:
        return markdown(head, runs, below)
    leads = [_lead(peer, [row["lead"] for row in each]) for peer, each in found["compared"].items()]
    return markdown(head, runs, markdown(against, rows, "\n\n".join([below, *leads]))).rstrip("\n") + "\n"


def _conditions(found: Mapping[str, Any]) -> str:
    settings = found["settings"]
    dtype = renamed_settings(flatten(settings))["machine.dtype"]
    measured = f"accuracy of {settings['samples']} samples each on {settings['items']} items"
    return f"The score: {measured}, from the warm start to the last step. {found['hardware']}, {dtype}."


def _run(curve: Mapping[str, Any]) -> list[str]:
    each = curve["step_seconds"]
    cells = [curve["id"], f"{curve['seed']}", f"{len(each)}", f"{median(each):.1f} [{min(each):.1f}, {max(each):.1f}]", f"{sum(each):,.0f}"]
    return [*cells, *(f"{100 * curve[name][0]:.1f} to {100 * curve[name][-1]:.1f} %" for name in ("score", "greedy"))]


def _are_many(found: Mapping[str, Any]) -> bool:
    """Say whether there are too many seeds for a line and a colour each."""
    return len({curve["seed"] for curve in found["curves"]}) > _MANY


def _runs(curves: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Write one line for all runs of a practice: medians of seconds over runs, means of scores."""
    lines = []
    for name in dict.fromkeys(curve["id"] for curve in curves):
        own = [curve for curve in curves if curve["id"] == name]
        seconds = [median(curve["step_seconds"]) for curve in own]
        each_step = f"{median(seconds):.2f} [{min(seconds):.2f}, {max(seconds):.2f}]"
        whole = f"{median(sum(curve['step_seconds']) for curve in own):,.0f}"
        line = [name, f"{len(own)} seeds", f"{len(own[0]['step_seconds'])}", each_step, whole]
        ends = ([fmean(curve[each][place] for curve in own) for place in (0, -1)] for each in ("score", "greedy"))
        lines.append([*line, *(f"{100 * start:.1f} to {100 * end:.1f} %" for start, end in ends)])
    return lines


def _comparisons(peer: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write one line for all seeds: medians of seconds and ratios, means of scores."""
    means = {name: fmean(row[name] for row in rows) for name in ("gain", "target", "lead")}
    times = {name: [row[name] for row in rows] for name in ("our_seconds", "their_seconds", "ratio")}
    shown = {name: None if None in each else median(each) for name, each in times.items()}
    seconds = [_number(shown[name], ",.1f") for name in ("our_seconds", "their_seconds")]
    line = [peer, f"{len(rows)} seeds", f"{100 * means['gain']:+.1f} points", f"{100 * means['target']:.1f} %"]
    return [*line, *seconds, _number(shown["ratio"], ".2f"), f"{100 * means['lead']:+.1f} points"]


def _comparison(peer: str, row: Mapping[str, Any]) -> list[str]:
    cells = [peer, f"{row['seed']}", f"{100 * row['gain']:+.1f} points", f"{100 * row['target']:.1f} %"]
    cells += [*(_number(row[name], ",.0f") for name in ("our_seconds", "their_seconds")), _number(row["ratio"], ".2f")]
    return [*cells, f"{100 * row['lead']:+.1f} points"]


def _lead(peer: str, leads: Sequence[float]) -> str:
    """Write the mean lead of a peer, and what of it is more than the difference of two runs."""
    found = run_interval(leads)
    over = f" ({100 * found[0]:+.1f} to {100 * found[1]:+.1f} over runs)" if found else ""
    return f"Lead of {peer}, mean of the second half of the measurements: {100 * fmean(leads):+.1f} points{over}, {len(leads)} seeds."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw scores over seconds: dots as measured, the rising curve through them, thin lines at the scores that are timed.

    Of many seeds only the curves are drawn.
    """
    are_many = _are_many(found)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    styles = dict(zip(dict.fromkeys(curve["seed"] for curve in found["curves"]), cycle(_STYLES), strict=False))
    named: set[str] = set()
    for curve in found["curves"]:
        colour, style = _COLOURS[curve["id"]], "-" if are_many else styles[curve["seed"]]
        name = curve["id"] if are_many else f"{curve['id']}, seed {curve['seed']}"
        label = f"_{name}" if name in named else name  # matplotlib leaves labels that begin so out of the legend
        named.add(name)
        axes.plot(curve["seconds"], rising(curve["score"]), color=colour, linestyle=style, linewidth=0.5 if are_many else None, label=label)
        if not are_many:
            axes.scatter(curve["seconds"], curve["score"], color=colour, s=12)
    for peer, rows in {} if are_many else found["compared"].items():
        for row in rows:
            if row["gain"] > 0:
                axes.axhline(row["target"], color=_COLOURS[peer], linestyle=styles[row["seed"]], linewidth=0.6)
    axes.set_xscale("symlog", linthresh=min(curve["seconds"][1] for curve in found["curves"]))  # straight from 0 to the first measurement
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of practice" + ("" if are_many else " (thin lines: half of a peer's gain)"), fontsize=8)
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.grid(color="#e7e9ee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    save(figure, path)
