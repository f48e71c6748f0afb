"""Tables of the page: each suite's models, then trivial baselines, with a cell per run; mean rewards if they differ from accuracies."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from etude.evaluation.report.number_format import is_number
from etude.evaluation.report.run_folder import MODELS, Run
from etude.evaluation.rewards import tells_more


def suite_tables(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build the table of every suite (models, then baselines), with a cell for each run; a run's best baseline is marked."""
    tables = []
    for suite in dict.fromkeys(row.get("suite") for run in runs for row in run.rows):
        of_runs = [{row.get("model"): row for row in run.rows if row.get("suite") == suite} for run in runs]
        baselines = [{name: value for row in rows.values() for name, value in baselines_of(row).items()} for rows in of_runs]
        rewards = [{name: value for row in rows.values() for name, value in baseline_rewards_of(row).items()} for rows in of_runs]
        models = [model for model in MODELS if any(model in rows for rows in of_runs)]
        tables.append(
            {
                "suite": suite,
                "num_samples": next((k for rows in of_runs for row in rows.values() if (k := num_samples(row))), "k"),
                "models": [{"name": MODELS[model], "cells": [rows.get(model) for rows in of_runs]} for model in models],
                "baselines": _baseline_rows(baselines, rewards),
                "best_baseline": [max(found.values(), default=None) for found in baselines],
                "right_at": next((row["right_at"] for rows in of_runs for row in rows.values() if is_number(row.get("right_at"))), None),
                "has_rewards": any(tells_more(row) for rows in of_runs for row in rows.values()),
            }
        )
    return tables


def retention_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build a row of general knowledge for every model of every run, with its change from the base model."""
    rows = []
    for run in runs:
        changes = {pair.get("second"): pair for pair in run.result.get("retention_paired") or ()}
        for row in run.result.get("retention") or ():
            model = row.get("model")
            rows.append({"run": run.name, "name": MODELS.get(model, model), "row": row, "change": changes.get(model) or {}})
    return rows


def domain_change_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Collect the changes of every part of the domain suite in every adaptation run."""
    return [{"run": run.name, "row": row} for run in runs for row in run.result.get("changes") or () if isinstance(row, Mapping)]


def thought_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Build a row for every measured model, suite and thought length."""
    return [
        {
            "run": run.name,
            "suite": row.get("suite"),
            "name": MODELS.get(str(row.get("model")), row.get("model")),
            "row": row,
            "after": after,
        }
        for run in runs
        for row in run.rows
        for after in row.get("thought") or ()
    ]


def num_samples(row: Mapping[str, Any]) -> int | None:
    """Return the k of a row's pass@k."""
    return next((int(name[8:]) for name in row if name.startswith("pass_at_") and name[8:].isdecimal() and len(name) < 16), None)


def baselines_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the trivial baselines of an evaluation row that have a value, by name."""
    named = {"most_frequent": row.get("baseline_constant"), **(row.get("baselines") or {})}
    return {name.replace("_", " "): value for name, value in named.items() if is_number(value)}


def baseline_rewards_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean rewards of the trivial baselines that answer every task, by name."""
    return {name.replace("_", " "): value for name, value in (row.get("baseline_rewards") or {}).items() if is_number(value)}


def _baseline_rows(accuracies: Sequence[Mapping[str, float]], rewards: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Build a row for every trivial baseline, with a cell for each run; one row for all where none is right or rewarded anywhere."""
    names = list(dict.fromkeys(name for found in accuracies for name in found))
    if len(names) > 1 and not any(value for found in (*accuracies, *rewards) for value in found.values()):
        none = [None] * len(accuracies)
        return [
            {
                "name": f"each of {len(names)} rules",
                "cells": [0.0 if found else None for found in accuracies],
                "rewards": none,
                "best": none,
            }
        ]
    return [
        {
            "name": name,
            "cells": [found.get(name) for found in accuracies],
            "rewards": [found.get(name) for found in rewards],
            "best": [name in _best(*found) for found in zip(accuracies, rewards, strict=True)],
        }
        for name in names
    ]


def _best(accuracies: Mapping[str, float], rewards: Mapping[str, float]) -> list[str]:
    """Return the rules with the highest accuracy and, among these, the highest mean reward."""
    ranks = {name: (accuracy, rewards.get(name, -inf)) for name, accuracy in accuracies.items()}
    return [name for name, rank in ranks.items() if rank == max(ranks.values())]
