"""Evaluation of a practice run's models: every suite and the retention probe, one page for each model in the run folder."""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from etude.errors import UserError
from etude.evaluation.measure import Measurement, Suite, measure
from etude.training.practice_run import PracticeRun
from etude.training.result import Page
from etude.training.settings import PracticeSettings


def evaluate_suites(run: PracticeRun, model: str, *, unchanged: Page | None = None) -> Page:
    """Evaluate the current model, called `model`, on every suite and the probe; read the page if it exists.

    `unchanged` is an earlier page of the same model, if it was not trained since. Raises UserError for a page of other items.
    """
    page = run.folder.read_json(f"evaluation/{model}.json")
    if page is None:
        how, counts = measurement(run.settings), Counter(run.verifiers.counts)
        page = dict(unchanged) if unchanged else {"suites": [_measure(run, model, suite, how) for suite in run.data.suites]}
        if run.probe and not unchanged:
            page["retention"] = run.known()
        page |= {"model": model, "feedback_counts": run.verifiers.counts_since(counts)}
        run.folder.write_json(f"evaluation/{model}.json", page)
    _check_items(run, f"evaluation/{model}.json", page)
    run.reporter.measured(model, [suite["row"] for suite in page["suites"]])
    return page


def measurement(settings: PracticeSettings) -> Measurement:
    """Return the measurement of suites."""
    evaluation, rollout = settings.evaluation, settings.rollout
    longest = evaluation.max_new_tokens or rollout.max_new_tokens
    sizes = longest, evaluation.pass_n, evaluation.num_samples
    return Measurement(*sizes, rollout.sampling, settings.seed, evaluation.thought, settings.max_unscored_share)


def _measure(run: PracticeRun, model: str, suite: Suite, how: Measurement) -> dict[str, Any]:
    run.reporter.measuring(model, suite.name, len(suite.tasks))
    return measure(run.engine, suite, how, run.judge)


def _check_items(run: PracticeRun, name: str, page: Mapping[str, Any]) -> None:
    """Raise UserError if a page has other items than now, since paired tests would compare different questions."""
    pairs = itertools.zip_longest(run.data.suites, page["suites"])
    is_same = all(
        suite and found and [task.key for task in suite.tasks] == [item["task"] for item in found["items"]] for suite, found in pairs
    )
    if not is_same or (run.probe and "retention" in page and page["retention"]["probe"] != run.probe.key):
        raise UserError(
            f"--resume: {run.folder.path / name} is of other evaluation items than there are now: "
            "resume with the data that the run began with, or start another run"
        )
