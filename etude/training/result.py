"""`result.json` of a practice run: the metrics of every model and their changes; deterministic for a seed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etude.evaluation.measure import compare_measurements
from etude.evaluation.retention import compare_retention
from etude.models.load import describe_weights
from etude.training.settings import PracticeSettings

Page = dict[str, Any]
"""A model's measurements: `suites` (with `row` and `items`), `retention`, `feedback_counts`."""


def result_of(
    name: str,
    settings: PracticeSettings,
    pages: Mapping[str, Page],
    tasks: Mapping[str, float],
    feedback_counts: Mapping[str, int],
    steps: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the result of a finished run of the recipe `name`, from its models' pages and the metrics of practice's `steps`.

    Pages are `base`, `warm_start`, `preference` and `practice`; stages that the run does not have are left out.
    """
    skipped = {"warm_start": not settings.warm_start.steps, "preference": not settings.preferences.steps}
    shown = {model: page for model, page in pages.items() if not skipped.get(model)}
    pairs = [(model, "practice") for model in reversed(shown) if model != "practice"]
    unscored = unscored_in(steps, [suite["row"] for page in shown.values() for suite in page["suites"]])
    probed = {model: page["retention"] for model, page in shown.items() if "retention" in page}
    return {
        "recipe": name,
        "status": "finished",
        "seed": settings.seed,
        "weights": describe_weights(settings.model),
        "evaluation": [{"model": model, **suite["row"]} for model, page in shown.items() for suite in page["suites"]],
        "paired": [
            compare_measurements(first, second, before, after)
            for first, second in pairs
            for before, after in zip(pages[first]["suites"], pages[second]["suites"], strict=True)
        ],
        "retention": [{"model": model, **found["row"]} for model, found in probed.items()],
        "retention_paired": [
            compare_retention("base", model, probed["base"], found)
            for model, found in probed.items()
            if "base" in probed and model != "base"
        ],
        "tasks": dict(tasks),
        "feedback_counts": dict(feedback_counts),
        "unscored": unscored,
    }


def unscored_in(steps: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count the attempts of `practice` and answers of an `evaluation` without a score, with the commonest `reason` of a step or row; {} if
    all have one.
    """
    practised = sum(step.get("unscored", 0) for step in steps)
    measured = sum(row.get("unscored", 0) + row.get("sampled_unscored", 0) for row in rows)
    if not practised + measured:
        return {}
    reasons: Counter[str] = Counter()
    for each in (*steps, *rows):
        if each.get("unscored_reason"):
            reasons[each["unscored_reason"]] += each["unscored"]
    return {"practice": practised, "evaluation": measured, "reason": reasons.most_common(1)[0][0] if reasons else None}
