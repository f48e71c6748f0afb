"""What it costs a step of practice that its run can be killed: ledger, attempts, metrics and checkpoints, as a share of the whole.

    python -m bench.exactness [--recipe quickstart] [--steps 26] [--json FILE] [--key value ...]

One run is made in a temporary folder, from the recipe without its warm start and measurements; the writers are timed where they are called.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from etude.console.reporter import Silent
from etude.recipes import practice as recipe
from etude.recipes.settings import parse_practice
from etude.rewards.outcome import OutcomeFeedback
from etude.settings.configuration import arguments_from, find_configuration
from etude.training.ledger import Ledger
from etude.training.run_folder import RunFolder, environment, read_jsonl

SMALL = {"warm_start.steps": 0, "warm_start.n": 0, "evaluation.n": 16, "evaluation.pass_n": 0, "retention.probe": False}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.exactness")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=26)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    chosen, overrides = parser.parse_known_args()
    found = measured(chosen.recipe, chosen.steps, overrides, chosen.data)
    for name, value in found["share"].items():
        print(f"{name:12} {1000 * found['seconds_a_step'][name]:9.2f} ms a step   {value:7.3%}")
    print(f"all          of a step of {found['step_seconds']:.2f} s (median of {found['n']}): {found['all']:.2%}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(name: str, steps: int, overrides: list[str], data: Path | None) -> dict[str, Any]:
    """Seconds a step of every writer, checkpoints spread over the steps between them, and their share of the median step."""
    settings = parse_practice(find_configuration("practice", name), [*arguments_from(SMALL | {"steps": steps}), *overrides])
    spent: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch, OutcomeFeedback(settings.timeout_seconds) as outcome:
        folder = RunFolder(Path(scratch) / "run")
        run = recipe.Practice(settings, name, folder, data, outcome, Silent())
        run.prepare()
        with (
            timed(spent["ledger"], Ledger, "write"),
            timed(spent["attempts"], RunFolder, "write_attempts"),
            timed(spent["metrics"], RunFolder, "append"),
            timed(spent["checkpoints"], recipe, "save_checkpoint"),
        ):
            run.practise()
        rows = [row for row in read_jsonl(folder.path / "timings.jsonl") if row["phase"] == "practice"]
    step_seconds = median(sum(value for key, value in row.items() if key.endswith("_seconds")) for row in rows)
    each = {name: sum(times) / steps for name, times in spent.items() if name != "checkpoints"}
    each["checkpoints"] = median(spent["checkpoints"]) / (settings.checkpoint_every or steps)
    share = {name: value / (step_seconds + sum(each.values())) for name, value in each.items()}
    where = environment()
    return {
        "recipe": name,
        "n": len(rows),
        "step_seconds": step_seconds,
        "seconds_a_step": each,
        "share": share,
        "all": sum(share.values()),
        "checkpoint_every": settings.checkpoint_every,
        "commit": where["commit"],
        "hardware": f"{where['processor']}, {where['threads']} threads",
    }


def timed(times: list[float], owner: Any, name: str) -> Any:
    """Let calls of `owner.name` leave their seconds in `times`."""
    real: Callable[..., Any] = getattr(owner, name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return real(*arguments, **options)
        finally:
            times.append(time.perf_counter() - start)

    return patch.object(owner, name, wrapper)


if __name__ == "__main__":
    main()
