"""Say what became of claims: under a study's table, and of all studies in one table.

Both follow from `studies/NAME/result.json` alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.commits import ROOT
from experiments.tables import Column, Row, name_of, table, value

Result = Mapping[str, Any]


def judged(result: Result) -> str:
    """Write claim, verdict, rule, power and remarks of a study as a list."""
    said = [f"Claim: {result['claim']}.", f"Verdict: **{verdict_of(result)}**: {result['because']}."]
    if rule := result.get("rule"):
        said.append(f"Rule ([how claims are judged](docs/evidence.md)): {rule}.")
    if changed := result.get("rule_changed"):
        said.append(f"The rule was changed on {changed}. Verdict before: {result['verdict_before']}.")
    if power := seen(result):
        said.append(f"Such a study decides, in 80 % of cases and by the spread of its runs, on a difference of {power}.")
    if (kept := result.get("cells", {})).get("dirty"):
        said.append(f"{kept['dirty']} of {kept['number']} cells name a commit from which the sources differed.")
    return "".join(f"- {line}\n" for line in (*said, *result.get("remarks", ())))


def verdict_of(result: Result) -> str:
    """Return the verdict, with what it is about where that is less than the claim says.

    >>> verdict_of({"verdict": "holds"}), verdict_of({"verdict": "holds", "about": "this model"})
    ('holds', 'holds for this model')
    """
    return str(result["verdict"]) + (f" for {result['about']}" if result.get("about") else "")


def seen(result: Result) -> str:
    """Say what size of a difference the study can see, of each that its verdict rests on."""
    power = result.get("power", {})
    return ", ".join(f"{_size(own)} {own['unit']} ({name})" for name, own in power.items() if "seen" in own)


def _size(own: Mapping[str, Any]) -> str:
    return f"{100 * own['seen']:.1f}" if own["unit"] == "points" else f"{own['seen']:.2g}"


def results(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the results of all studies with their names, as `id`, and the most seeds that a row has."""
    found = []
    for path in sorted((root / "studies").glob("*/result.json")):
        result = json.loads(path.read_text(encoding="utf8"))
        found.append({**result, "id": path.parent.name, "seeds": max(row["seeds"] for row in result["rows"])})
    return found


def verdicts_table(every: Sequence[Row]) -> str:
    """Write one line a study: its verdict, and the one before claims were judged by runs."""
    columns = [
        Column("study", name_of),
        Column("claim", value("claim")),
        Column("seeds", value("seeds")),
        Column("verdict before", lambda row: str(row.get("verdict_before", row["verdict"]))),
        Column("verdict", verdict_of),
        Column("seen", _range_seen),
    ]
    same = sum(row.get("verdict_before", row["verdict"]) == row["verdict"] for row in every)
    below = (
        f"{len(every)} studies, of which {same} have the verdict that they had before. Seen: the difference beyond the bound on which "
        "such a study decides in 80 % of cases, by the spread of its runs; the smallest and the largest of what it judges."
    )
    return table(every, columns, below)


def _range_seen(row: Row) -> str:
    found = sorted((own for own in row.get("power", {}).values() if "seen" in own), key=lambda own: float(own["seen"]))
    by_unit = {own["unit"]: [_size(each) for each in found if each["unit"] == own["unit"]] for own in found}
    return ", ".join(f"{' to '.join(dict.fromkeys((sizes[0], sizes[-1])))} {unit}" for unit, sizes in by_unit.items())
