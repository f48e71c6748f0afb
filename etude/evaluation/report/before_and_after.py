"""Evaluation items with the answers of every model of a run, side by side."""

from collections.abc import Mapping
from typing import Any

from etude.evaluation.report.attempts import MAX_TEXT, clip, outcome_of
from etude.evaluation.report.run_folder import MODELS, Run

MAX_ITEMS = 30
"""Maximum number of evaluation items shown for each suite."""


def before_and_after(run: Run) -> list[dict[str, Any]]:
    """Collect the first items of every suite that all models answered, with each answer."""
    suites = []
    names = dict.fromkeys(suite.get("suite") for page in run.evaluation.values() for suite in page.get("suites") or ())
    for name in names:
        answers = {
            model: {
                item.get("task"): item
                for suite in page.get("suites") or ()
                if suite.get("suite") == name
                for item in suite.get("items") or ()
            }
            for model, page in run.evaluation.items()
        }
        answers = {model: items for model, items in answers.items() if items}
        if not answers:
            continue
        keys = [key for key in next(iter(answers.values())) if all(key in items for items in answers.values())]
        suites.append({"suite": name, "total": len(keys), "items": [_item(key, answers) for key in keys[:MAX_ITEMS]]})
    return suites


def _item(key: str, answers: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    first = next(iter(answers.values()))[key]
    return {
        "question": clip(first.get("question"), MAX_TEXT),
        "answer": clip(first.get("answer"), MAX_TEXT),
        "models": [
            {
                "name": MODELS[model],
                "text": clip(items[key].get("text"), MAX_TEXT),
                "outcome": outcome_of(items[key]),
                "reward": items[key].get("score"),
            }
            for model, items in answers.items()
        ],
    }
