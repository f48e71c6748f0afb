"""What it costs a step of practice that its run can be killed: ledger, attempts, metrics and checkpoints, as a share of the whole.

    python -m bench.exactness [--recipe number_sorting] [--steps 26] [--json FILE] [--key value ...]

One run is made in a temporary folder, from the recipe without its warm start and measurements; the writers are timed where they are called.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from etude.files import read_jsonl
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.training.ledger import Ledger
from etude.training.parse import parse_practice
from etude.training.run_folder import RunFolder
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.prepared_run import WRITES_CHECKPOINTS, prepared_run
from experiments.tables import markdown

SMALL = {"warm_start.steps": 0, "warm_start.n": 0, "evaluation.n": 16, "evaluation.pass_n": 0, "retention.probe": False}


def measured(name: str, steps: int, overrides: list[str], data: Path | None) -> dict[str, Any]:
    """Measure the seconds a step of every writer, checkpoints spread over the steps between them, and their share of the median step."""
    settings = parse_practice(find_configuration("practice", name), [*arguments_from(SMALL | {"steps": steps}), *overrides])
    spent: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(Path(scratch) / "run")
        with (
            prepared_run(settings, name, folder, data) as run,
            timed(spent["ledger"], Ledger, "write"),
            timed(spent["attempts"], RunFolder, "write_attempts"),
            timed(spent["metrics"], RunFolder, "append"),
            timed(spent["checkpoints"], *WRITES_CHECKPOINTS),
        ):
            run.practise()
        rows = [row for row in read_jsonl(folder.path / "timings.jsonl") if row["phase"] == "practice"]
    step_seconds = median(sum(value for key, value in row.items() if key.endswith("_seconds")) for row in rows)
    each = {name: sum(times) / steps for name, times in spent.items() if name != "checkpoints"}
    each["checkpoints"] = median(spent["checkpoints"]) / (settings.save_steps or steps)
    share = {name: value / (step_seconds + sum(each.values())) for name, value in each.items()}
    return {
        "recipe": name,
        "n": len(rows),
        "step_seconds": step_seconds,
        "seconds_a_step": each,
        "share": share,
        "all": sum(share.values()),
        "save_steps": settings.save_steps,
        **made_here(),
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


def table(found: Mapping[str, Any]) -> str:
    lines = [[name, f"{1000 * found['seconds_a_step'][name]:.2f}", f"{share:.3%}"] for name, share in found["share"].items()]
    below = f"All: {found['all']:.2%} of a step of {found['step_seconds']:.2f} s (median of {found['n']}). {found['hardware']}."
    return markdown(["writer", "ms a step", "of a step"], lines, below)


ARGUMENTS = {
    "recipe": Argument("number_sorting"),
    "steps": Argument(26),
    "data": Argument(None, "the folder of data sets"),
}
BENCHMARK = Benchmark(
    "exactness",
    __doc__,
    ARGUMENTS,
    lambda chosen: measured(chosen.recipe, chosen.steps, chosen.settings, chosen.data),
    table,
    takes_settings=True,
)

if __name__ == "__main__":
    BENCHMARK.main()
