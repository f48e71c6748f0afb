"""The end of a practice run: the final model, its card, `result.json` and the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.cards.practice_card import write_cards
from etude.evaluation.report import write_report
from etude.training.callback_list import CallbackList
from etude.training.practice_run import PracticeRun
from etude.training.result import Page, result_of
from etude.training.run import rows_of
from etude.training.saving import save_adapters, save_asked


def conclude(run: PracticeRun, pages: Mapping[str, Page], callbacks: CallbackList, shown: list[Path]) -> dict[str, Any]:
    """Write the final model with its card, `result.json` and the report of the folders that are `shown`."""
    save_asked(run.model, run.tokenizer, run.folder.path / "model", run.settings)
    save_adapters(run.model, run.tokenizer, run.folder.path, run.base, run.settings)
    callbacks.save(run)
    steps = rows_of(run.folder, "practice")
    result = result_of(run.name, run.settings, pages, run.data.facts, _counts(run), steps)
    result |= callbacks.finish()
    write_cards(run.folder.path, run.settings, result, run.data.measured, run.tokenizer)
    run.folder.write_json("result.json", result)
    write_report(shown, run.folder.path / "report.html")
    run.reporter.concluded(result, run.folder.path, callbacks.sentences(result))
    return result


def _counts(run: PracticeRun) -> dict[str, int]:
    """Return the reward's counts over the whole run, resumed or not, from the files of the stages."""
    pages = [run.folder.read_json(f"evaluation/{path.name}") for path in sorted((run.folder.path / "evaluation").glob("*.json"))]
    rows = [*(page.get("feedback_counts", {}) for page in pages), *run.folder.log_rows("metrics.jsonl")]
    return {name: sum(row.get(name, 0) for row in rows) for name in run.reward.counts()}
