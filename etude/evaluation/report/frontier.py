"""Charts of new skill against general knowledge: a point for every model of a run, in order, and a ring for every check.

The skill of a check is that of the step's attempts, if verifiers score them. Skill is accuracy, or mean reward if accuracy can't
distinguish the models (`etude.evaluation.rewards.leads_with_reward`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.evaluation.report.axes import BOTTOM, LEFT, RIGHT, TOP, path_data, scale, tick_label, ticks_of
from etude.evaluation.report.checks import check_outcome, checks_of
from etude.evaluation.report.number_format import is_number
from etude.evaluation.report.run_folder import MODELS, Run
from etude.evaluation.rewards import tells_more


@dataclass(frozen=True)
class Knowledge:
    """A metric of general knowledge, with its name in the chart."""

    key: str
    name: str
    is_share: bool


KNOWLEDGE = (
    Knowledge("choice_accuracy", "general-knowledge questions right", True),
    Knowledge("perplexity", "perplexity of general text", False),
)


def frontiers_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build a chart for each knowledge metric that at least two models have."""
    return [chart for kind in KNOWLEDGE if (chart := _chart(kind, runs))]


def _chart(kind: Knowledge, runs: Sequence[Run]) -> dict[str, Any] | None:
    skill_key = "mean_reward" if any(map(_leads_with_reward, runs)) else "accuracy"
    title = f"{skill_key.replace('_', ' ').capitalize()} on the new task against {kind.name}"
    models = [_models(kind, run, skill_key) for run in runs]
    looks = [_looks(kind, run, skill_key) for run in runs]
    every = [(known, skill) for of_run in (*models, *looks) for _, known, skill in of_run]
    if max(map(len, models), default=0) < 2:
        return None
    known, skill = zip(*every, strict=True)
    x_ticks, y_ticks = ticks_of(min(known), max(known)), ticks_of(min(skill), max(skill))
    across, up = scale(x_ticks[0], x_ticks[-1], LEFT, RIGHT), scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    return {
        "title": title,
        "axis": "questions right" if kind.is_share else "perplexity",
        "x_ticks": [(across(tick), tick_label(tick, x_ticks[1] - x_ticks[0], kind.is_share)) for tick in x_ticks],
        "y_ticks": [(up(tick), tick_label(tick, y_ticks[1] - y_ticks[0], skill_key == "accuracy")) for tick in y_ticks],
        "label": _label(title, runs, models),
        "runs": [
            {
                "colour": number,
                "path": path_data([(known, skill) for _, known, skill in of_run], across, up),
                "models": [{"name": name, "x": across(known), "y": up(skill)} for name, known, skill in of_run],
                "looks": [{"name": name, "x": across(known), "y": up(skill)} for name, known, skill in looks[number]],
            }
            for number, of_run in enumerate(models)
        ],
    }


def _leads_with_reward(run: Run) -> bool:
    """Return whether a run's models are compared by mean reward on its first suite."""
    first: Mapping[str, Any] = next(iter(run.result.get("paired") or ()), {})
    return first.get("leads") == "mean_reward"


def _models(kind: Knowledge, run: Run, skill_key: str) -> list[tuple[str, float, float]]:
    """Return (name, knowledge, skill on the first suite) of the models that have both."""
    suite = next((row.get("suite") for row in run.rows), None)
    skill = {row.get("model"): row.get(skill_key) for row in run.rows if row.get("suite") == suite}
    known = {row.get("model"): row.get(kind.key) for row in run.result.get("retention") or ()}
    found = [(name, known.get(model), skill.get(model)) for model, name in MODELS.items()]
    return [(name, knows, can) for name, knows, can in found if is_number(knows) and is_number(can)]


def _looks(kind: Knowledge, run: Run, skill_key: str) -> list[tuple[str, float, float]]:
    """Return (name, knowledge, skill) of each check, if verifiers score attempts: agreement and random scores measure no skill."""
    if run.reward != "verifier":
        return []
    is_graded = skill_key == "accuracy" and any(map(tells_more, run.rows))  # then the mean score is not an accuracy
    skill = "pass_at_1" if is_graded else "score"
    found = [(f"step {row['step']}, {check_outcome(row)}", row.get(kind.key), row.get(skill)) for row in checks_of(run)]
    return [(name, knows, can) for name, knows, can in found if is_number(knows) and is_number(can)]


def _label(title: str, runs: Sequence[Run], models: Sequence[Sequence[tuple[str, float, float]]]) -> str:
    """Describe the chart in a sentence for screen readers."""
    parts = []
    for run, of_run in zip(runs, models, strict=True):
        who = f"{run.name}, " if len(runs) > 1 else ""
        parts += [f"{who}{name}: {can:.3g} at {knows:.3g}" for name, knows, can in of_run]
    return f"{title}. {'; '.join(parts)}."
