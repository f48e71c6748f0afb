"""Writes the report page of run folders as one HTML file."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from etude.errors import UserError
from etude.evaluation.report.attempts import attempts_json
from etude.evaluation.report.before_and_after import MAX_ITEMS, before_and_after
from etude.evaluation.report.charts import charts_of
from etude.evaluation.report.checks import check_outcome, checks_of
from etude.evaluation.report.frontier import frontiers_of
from etude.evaluation.report.number_format import (
    interval,
    is_number,
    nats,
    nats_interval,
    p_value,
    percent,
    plain,
    points,
    points_interval,
    reward,
    reward_change,
    reward_change_interval,
    reward_interval,
)
from etude.evaluation.report.progress import STATES, Progress
from etude.evaluation.report.run_folder import MODELS, PHASES, Run, check_is_run, read_run
from etude.evaluation.report.sentences import remarks_on, spaced, summary
from etude.evaluation.report.tables import domain_change_rows, retention_rows, suite_tables, thought_rows
from etude.evaluation.report.trees import tree_pictures
from etude.outputs import write_output

MAX_RUNS = 8
"""Maximum number of runs, since no more colours can be distinguished."""
MAX_ATTEMPTS = 10_000
"""Maximum number of attempts on a page, over all runs."""


def write_report(runs: Sequence[Path], page: Path) -> Path:
    """Write the page of one run, or of up to eight side by side, and return its path.

    An unfinished or incomplete run is shown with its existing files. Raises UserError for too many runs, for a folder that is not a run,
    and if `page` is a folder.
    """
    if not 1 <= len(runs) <= MAX_RUNS:
        raise UserError(f"a report shows 1 to {MAX_RUNS} runs, got {len(runs)}: name fewer run folders")
    folders = [Path(run) for run in runs]
    for folder in folders:
        check_is_run(folder)
    read = [read_run(folder, name, MAX_ATTEMPTS // len(folders)) for folder, name in zip(folders, names_of(folders), strict=True)]
    page = Path(page)
    if page.is_dir():
        raise UserError(f"--out {page}: is a folder: name a file in it")
    return write_page("report.html.j2", contents_of(read), page)


def write_page(template: str, contents: dict[str, Any], page: Path) -> Path:
    """Render a template of this folder to `page` (`etude.outputs`)."""
    text = render(template, contents)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_output(page, text)
    return page


def render(template: str, contents: dict[str, Any]) -> str:
    """Return the text of a page by a template of this folder."""
    return _environment().get_template(template).render(contents)


def contents_of(runs: Sequence[Run], progress: Sequence[Progress] | None = None, **live: Any) -> dict[str, Any]:
    """Collect everything that the template shows; `progress` and `live` are those of the page of runs that are being written."""
    suites = suite_tables(runs)
    return {
        "runs": runs,
        "summaries": [summary(run) for run in runs],
        "remarks": [remarks_on(run, progress[place] if progress else None) for place, run in enumerate(runs)],
        "progress": progress,
        "live": live,
        "suites": suites,
        "has_rewards": any(suite["has_rewards"] for suite in suites),
        "retention": retention_rows(runs),
        "changes": domain_change_rows(runs),
        "thoughts": thought_rows(runs),
        "frontiers": frontiers_of(runs),
        "checks": [checks_of(run) for run in runs],
        "has_attempts": not all(run.is_adaptation for run in runs),
        "has_paired": any(run.result.get("paired") for run in runs),
        "charts": {title: charts_of(runs, phase) for phase, title in PHASES.items()},
        "before_and_after": [before_and_after(run) for run in runs],
        "trees": [tree_pictures(run) for run in runs],
        "attempts": attempts_json(runs),
        "models": MODELS,
    }


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with the parent's name if two are equal."""
    names = [folder.resolve().name for folder in folders]
    return [
        f"{folder.resolve().parent.name}/{name}" if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)
    ]


@cache
def _environment() -> Environment:
    """Build the Jinja environment once, since it compiles the templates."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "nats": nats,
        "p_value": p_value,
        "plain": plain,
        "reward": reward,
        "reward_change": reward_change,
        "words": spaced,
        "is_number": is_number,
        "content_hash": _content_hash,
    }
    environment.globals |= {
        "interval": interval,
        "points_interval": points_interval,
        "nats_interval": nats_interval,
        "reward_interval": reward_interval,
        "reward_change_interval": reward_change_interval,
        "check_outcome": check_outcome,
        "max_items": MAX_ITEMS,
        "states": STATES,
    }
    return environment


def _content_hash(script: str) -> str:
    """Return the Content-Security-Policy source expression that allows exactly this inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
