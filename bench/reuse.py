"""What attempts of the last epoch save as drafts of the next ones: steps of a recipe, over a few tasks, for some epochs.

    python -m bench.reuse [RECIPE] [--n 64] [--epochs 2] [--json FILE] [--SETTING VALUE ...]

From the second epoch on, every step samples its attempts twice, with their drafts and without, in turns, from the same policy and the same
random numbers, so that both ways end in the same attempts (in float32; in bfloat16 another batch shape can flip a token). The ratio is of
processor seconds, summed over threads, without drafts to those with them, paired within a step: above 1 drafts save time. With one thread
(OMP_NUM_THREADS=1) these are clock seconds, but for what else the machine does.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bench.turns import spread
from etude.console.reporter import Silent
from etude.errors import UserError
from etude.recipes.practice import Practice
from etude.recipes.settings import parse_practice
from etude.rewards.outcome import OutcomeFeedback
from etude.rollouts.attempts import Group
from etude.rollouts.reuse import Drafts, visits
from etude.rollouts.samples import sample_groups
from etude.settings.configuration import find_configuration
from etude.training.run_folder import RunFolder, environment


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reuse", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--n", type=int, default=64, help="tasks; a multiple of those of a step")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen, overrides = parser.parse_known_args()
    try:
        found = measured(chosen.recipe, chosen.n, chosen.epochs, overrides)
    except UserError as error:
        sys.exit(f"bench.reuse: {error}")
    print(table(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(recipe: str, n: int, epochs: int, overrides: Sequence[str]) -> dict[str, Any]:
    """A row for every step from the second epoch on."""
    few = ["--n", str(n), "--explore.reuse", "true", "--evaluation.n", "10", "--evaluation.pass_n", "0", "--checkpoint_every", "0"]
    settings = parse_practice(find_configuration("practice", recipe), [*few, "--retention.probe", "false", *overrides])
    per_epoch, rows = n // settings.explore.tasks_per_step, []
    with tempfile.TemporaryDirectory() as scratch, OutcomeFeedback(settings.timeout_seconds) as outcome:
        run = Practice(settings, recipe, RunFolder(Path(scratch) / "run"), None, outcome, Silent())
        run.prepare()
        run.warm_start()
        learner = run.practice_learner()
        for step in range(1, epochs * per_epoch + 1):
            if step > per_epoch:
                rows.append(_step(run, step))
            run.learn(step, run.exploring.attempts_of(step, outcome.judge), learner)
        where = environment()
        return {
            "steps": rows,
            "ratio": spread([row["processor_seconds"]["without"] / row["processor_seconds"]["with"] for row in rows]),
            "reused": mean(row["reused"] for row in rows),
            "settings": {"recipe": recipe, "n": n, "epochs": epochs, "precision": run.place.precision, "overrides": list(overrides)},
            "hardware": f"{where['processor']}, {where['threads']} threads",
            "commit": where["commit"],
        }


def _step(run: Practice, step: int) -> dict[str, Any]:
    """Sample the attempts of a step both ways; those that go on are sampled once more, by the run itself."""
    drafts = run.exploring.drafts_before(step)
    assert drafts is not None
    ways, seconds, groups = [("with", drafts), ("without", Drafts())], {}, {}
    for name, guesses in ways[::-1] if step % 2 else ways:
        start = time.process_time()
        groups[name] = _sampled(run, step, guesses)
        seconds[name] = time.process_time() - start
    own = [[attempt.own_tokens for group in groups[name] for attempt in group.attempts] for name, _ in ways]
    return {
        "step": step,
        "processor_seconds": seconds,
        "reused": drafts.share(groups["with"]),
        "tokens": sum(map(len, own[0])),
        "same_attempts": mean(one == other for one, other in zip(*own, strict=True)),
    }


def _sampled(run: Practice, step: int, drafts: Drafts) -> list[Group]:
    """With no drafts in `drafts`, plain decoding from the same numbers."""
    explore, (tasks, prompts) = run.settings.explore, zip(*run.exploring.tasks_of(step), strict=True)
    how: dict[str, Any] = {"max_new_tokens": explore.max_new_tokens, "sampling": explore.sampling}
    return sample_groups(
        run.engine,
        tasks,
        prompts,
        num_samples=explore.num_samples,
        names=(run.settings.seed, "visits"),
        places=visits(task.key for task in tasks),
        drafts=drafts,
        **how,
    )


def table(found: dict[str, Any]) -> str:
    lines = ["| step | tokens | of drafts | processor seconds with | without | attempts equal |", "|---|---|---|---|---|---|"]
    for row in found["steps"]:
        seconds = row["processor_seconds"]
        cells = [str(row["step"]), str(row["tokens"]), f"{row['reused']:.1%}", f"{seconds['with']:.2f}", f"{seconds['without']:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{row['same_attempts']:.1%}"]) + " |")
    ratio = "{median:.2f} [{low:.2f}, {high:.2f}]".format(**found["ratio"])
    closing = f"Processor seconds without drafts / with: {ratio}. {found['hardware']}, {found['settings']['precision']}."
    return "\n".join([*lines, "", closing, ""])


if __name__ == "__main__":
    main()
