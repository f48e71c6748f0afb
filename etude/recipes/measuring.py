"""How practice measures its model before and after: every suite, and what it knew of old; a page for each model in the run folder."""

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.evaluation.measure import Measurement, Suite, measure
from etude.evaluation.retention import Probe, measure_retention
from etude.recipes.result import Page
from etude.recipes.settings import PracticeSettings
from etude.suites.retention_probe import logprobs_of

if TYPE_CHECKING:
    from etude.recipes.practice import Practice


def measured(run: "Practice", model: str, *, unchanged: Page | None = None) -> Page:
    """The run's model as it is now, called `model`, measured on every suite and probed; read from the folder where that was done before.

    `unchanged` is what was found of the same model before, where nothing was done to it since. Raises UserError for a page of other items.
    """
    page = run.folder.read_json(f"evaluation/{model}.json")
    if page is None:
        how, counts = measurement(run.settings), Counter(run.outcome.counts)
        page = dict(unchanged) if unchanged else {"suites": [_measure(run, model, suite, how) for suite in run.suites]}
        if run.probe and not unchanged:
            page["retention"] = known(run, run.probe)
        page |= {"model": model, "feedback_counts": run.outcome.counts_since(counts)}
        run.folder.write_json(f"evaluation/{model}.json", page)
    _check_items(run, f"evaluation/{model}.json", page)
    run.reporter.measured(model, [suite["row"] for suite in page["suites"]])
    return page


def known(run: "Practice", probe: Probe) -> dict[str, Any]:
    """What the run's model as it is now knows of the probe."""
    return measure_retention(probe, logprobs_of(run.model, run.place, run.settings.machine))


def measurement(settings: PracticeSettings) -> Measurement:
    """How suites are measured."""
    evaluation, explore = settings.evaluation, settings.explore
    longest = evaluation.max_new_tokens or explore.max_new_tokens
    sizes = longest, evaluation.pass_n, evaluation.num_samples
    return Measurement(*sizes, explore.sampling, settings.seed, evaluation.thought, settings.max_unscored_share)


def _measure(run: "Practice", model: str, suite: Suite, how: Measurement) -> dict[str, Any]:
    run.reporter.measuring(model, suite.name, len(suite.tasks))
    return measure(run.engine, suite, how, run.outcome.judge)


def _check_items(run: "Practice", name: str, page: Mapping[str, Any]) -> None:
    """A page that was read back is of the items that are measured now, or paired tests would compare different questions."""
    pairs = itertools.zip_longest(run.suites, page["suites"])
    is_same = all(
        suite and found and [task.key for task in suite.tasks] == [item["task"] for item in found["items"]] for suite, found in pairs
    )
    if not is_same or (run.probe and "retention" in page and page["retention"]["probe"] != run.probe.key):
        raise UserError(
            f"--resume: {run.folder.path / name} is of other evaluation items than there are now: "
            "resume with the data that the run began with, or start another run"
        )
