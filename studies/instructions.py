"""Does practice teach what only a verifier can tell? The quickstart beside controls that read no gold answer, ten unseen seeds.

    python -m studies.instructions --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

practice         the quickstart: policy gradient on the share of rules that an answer follows
imitation        imitation of own right attempts: the same tasks and attempts a step
sft_own          all attempts sampled before the first update, by the model as it came, and as many updates on the right ones
form_only        practice on another score: 1 for an answer that is not empty, whatever rules it follows
random_reward    practice on random scores of the same rate
best_of_8        no training: of eight samples the one with the highest mean log-prob a token, at the sampling temperature
demonstrations   supervised fine-tuning on answers that templates write (`experiments.instruction_templates`), as many updates: a control
                 that is told right answers, which the others are not

An answer is right if it follows all rules and is sound (`etude.callbacks.soundness_guard`). Suites: `quickstart` has the kinds of rules
that training has, `held_out` other kinds, `three_rules` three of the kinds of training at once, where training has one or two.

Claim, judged by runs (`experiments.runs`): (1) practice gains at least 25 points over the model as it came, (2) it is ahead of every
control that is told no right answer, (3) its gain on held-out kinds is at least half of its gain on those of training, and (4) of the
questions that the model knew with a margin it still knows at least 98 %. The rule was written before any cell. Settings were chosen on the
split `dev` with seeds 0 and 1. Power: runs of one arm differ by about 4 points, with which ten seeds show a lead of 4 points in 80 % of
studies.

What practice costs of the old knowledge is measured by the retention suite, with the model as it came to compare with (`known`, and `kept`:
the share still right of its right greedy answers).
"""

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from etude.callbacks.soundness_guard import SoundnessGuard
from etude.files import write_atomically
from etude.randomness import seed_for
from etude.rollouts.batch import RolloutBatch
from etude.suites.retention import RETENTION
from etude.training.callback import Metrics
from etude.training.run_folder import RunFolder
from experiments.arms import TINY_RUN, Arms, all_there, reduce_arms
from experiments.arms_table import arms_table
from experiments.cells import Cell, Options, compute, made_here
from experiments.instruction_templates import demonstrations
from experiments.measures import Verdict, all_hold, undecided
from experiments.prepared_run import prepared_run
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Compared, Found, Study
from experiments.tables import Column, Row, each_over_runs, markdown, percent

CLAIM = (
    "practice on instructions with rules gains >= 25 points over the model as it came, is ahead of every control that is told no right "
    "answer, brings at least half of the gain to held-out kinds of rules, and keeps >= 98 % of what the model knew"
)
SEEDS = tuple(range(120, 130))
MAIN, HELD_OUT = "quickstart", "held_out"
DEMONSTRATIONS = "runs/instructions/demonstrations.jsonl"
SUITES = {HELD_OUT: {"rules": "held_out"}, "three_rules": {"min_rules": 3, "max_rules": 3}}
RUN: dict[str, Any] = {"evaluation.n": 1000, "evaluation.pass_n": 0, "evaluation.num_samples": 0, "evaluation.parameters": SUITES}


def changes(steps: int, tasks: int, updates: int) -> dict[str, dict[str, Any]]:
    """Return the arms, and what each has otherwise than a practice of so many steps of so many tasks, with so many updates."""
    return {
        "practice": {},
        "imitation": {"learn.method": "imitation", "down_sampling": False},
        "sft_own": {
            "learn.method": "imitation",
            "down_sampling": False,
            "steps": 1,
            "rollout.tasks_per_step": steps * tasks,
            "learn.minibatches_per_epoch": updates,
        },
        "form_only": {"soundness_guard": False, "down_sampling": False, "callbacks.form_only": "studies.instructions:FormOnly"},
        "random_reward": {"reward": "random"},
        "best_of_8": {"steps": 0},
        "demonstrations": {
            "steps": 0,
            "warm_start.path": [DEMONSTRATIONS],
            "warm_start.n": 0,
            "warm_start.steps": updates,
            "warm_start.examples_per_step": 16,
            "warm_start.optimizer.learning_rate": 5e-5,
        },
    }


CHANGES = changes(steps=40, tasks=16, updates=80)
ARMS = tuple(CHANGES)
UNTOLD = ("imitation", "sft_own", "form_only", "random_reward", "best_of_8")
"""Controls that are told no right answer."""
KNOWN = 0.98
KEPT = ("known", "above chance", "kept", "newly right", "divergence")
"""Parts of the retention suite that a cell keeps."""
SHOWN = 10
"""Answers before and after that a page shows."""


class FormOnly(SoundnessGuard):
    """Scores 1 for an answer that is not empty compliance, instead of the verifier's score; sound ones only, as in practice."""

    name = "form_only"

    def before_update(self, batch: RolloutBatch) -> Metrics:
        batch.shaped_rewards = [[replace(reward, score=reward.parts["parsable"]) for reward in row] for row in batch.shaped_rewards]
        return super().before_update(batch)


@dataclass(frozen=True)
class Instructed(Arms):
    """The cells: practice runs, demonstrations by templates, and the choice among samples."""

    has_retention: bool = field(default=True, kw_only=True)

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Compute a cell."""
        if arm == "best_of_8":
            return self._best_of_samples(seed, chosen)
        settings = self._settings(arm, seed)
        if arm == "demonstrations":
            rows = demonstrations(settings.tasks.parameters, seed, settings.warm_start.steps * settings.warm_start.examples_per_step)
            Path(DEMONSTRATIONS).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(DEMONSTRATIONS), "".join(json.dumps(row) + "\n" for row in rows))
        more = partial(self._kept, data=chosen.data) if arm == "practice" else self.more
        return Arms(self.recipe, self.steps, self.overrides, self.changes, more=more).run(arm, seed, chosen)

    def _best_of_samples(self, seed: int, chosen: Options) -> Cell:
        """Choose among the start's samples of the main suite's tasks."""
        settings = self._settings("best_of_8", seed)
        rollout, folder = settings.rollout, RunFolder(chosen.out / "runs" / f"best_of_8-{seed}")
        with prepared_run(settings, self.recipe, folder, chosen.data) as run:
            suite = run.suites[0]
            keys = [[seed_for(seed, "best of", task.key, sample) for sample in range(rollout.num_samples)] for task in suite.tasks]
            how: dict[str, Any] = {"num_samples": rollout.num_samples, "max_new_tokens": rollout.max_new_tokens}
            found = run.engine.generate(suite.prompts, **how, sampling=rollout.sampling, keys=keys)
            best = [max(own, key=lambda sample: fmean(sample.logprobs) if sample.logprobs else -math.inf) for own in found]
            rewards = run.judge([(sample.text, task) for sample, task in zip(best, suite.tasks, strict=True)])
        folder.release()
        return made_here() | {
            "training_seconds": {},
            "sampled_tokens": sum(len(sample.tokens) for own in found for sample in own),
            "evaluation": [],
            "items": {suite.name: " ".join(task.key for task in suite.tasks)},
            "right": {"practice": {suite.name: "".join(str(int(reward.is_right)) for reward in rewards)}},
        }

    def _kept(self, folder: RunFolder, data: Path | None) -> Cell:
        """Return answers before and after, and what the practised model kept of what the model as it came knew."""
        before, after = (folder.read_json(f"evaluation/{name}.json")["suites"][0]["items"] for name in ("base", "practice"))
        learned = [(then, now) for then, now in zip(before, after, strict=True) if now["score"] == 1.0 != then["score"]]
        answers = [{"question": now["question"], "before": then["text"], "after": now["text"]} for then, now in learned[:SHOWN]]
        if not self.has_retention:
            return {"answers": answers}
        found = RETENTION.evaluate(
            str(folder.path / "model"), None, {"against": self._settings("practice", 0).model, "floor": False}, data=data
        )
        kept = [{name: row[name] for name in ("part", "name", "n", "value")} for row in found["rows"] if row["part"] in KEPT]
        return {"answers": answers, "retention": kept}


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for each arm and suite; practice's has what it kept of the old knowledge."""
    bases = {cell["seed"]: cell["right"]["base"] for cell in cells if cell["id"] == "practice"}
    complete = [
        cell if "base" in cell["right"] else {**cell, "right": {**cell["right"], "base": bases[cell["seed"]]}}
        for cell in cells
        if "base" in cell["right"] or cell["seed"] in bases
    ]
    rows = reduce_arms(complete, ARMS, start="base")
    for row in rows:
        if row["id"] == "practice" and row["set"] == MAIN:
            row |= _retained([cell["retention"] for cell in cells if "retention" in cell])
            row["answers"] = next((cell["answers"] for cell in cells if "answers" in cell), [])
    return rows


def _retained(found: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the shares known and kept of every seed, each over all parts' items."""
    measured: dict[str, Any] = {}
    for name in ("known", "kept"):
        own = [[row for row in rows if row["part"] == name] for rows in found]
        values = [sum(row["value"] * row["n"] for row in rows) / sum(row["n"] for row in rows) for rows in own if rows]
        measured |= {name: fmean(values), **over_runs(name, values)} if values else {}
    return measured


def judge(rows: Sequence[Row], seeds: int = len(SEEDS), main: str = MAIN) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {(row["id"], row["set"]): row for row in rows}
    if not all_there([row for row in rows if row["set"] == main], seeds, ("practice", *UNTOLD)):
        return undecided()
    practice, other = found["practice", main], found["practice", HELD_OUT]
    transfer = _beyond_half(other["gain_each_seed"], practice["gain_each_seed"])
    parts: dict[str, bool | None] = {
        f"practice gains >= 25 points ({in_points(practice['gain_each_seed'])})": is_above(practice["gain_each_seed"], 0.25)
    }
    for arm in UNTOLD:
        ahead = found[arm, main]["practice_ahead_each_seed"]
        parts[f"it is ahead of {arm} ({in_points(ahead)})"] = is_above(ahead)
    parts[f"held-out kinds gain at least half ({in_points(transfer)} beyond it)"] = is_above(transfer)
    known = practice.get("known_each_seed", [])
    parts[f"it still knows >= 98 % ({in_points(known)})"] = is_above(known, KNOWN) if known else None
    return all_hold(parts)


def _beyond_half(held_out: Sequence[float], main: Sequence[float]) -> list[float]:
    return [own - whole / 2 for own, whole in zip(held_out, main, strict=True)]


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the differences of each seed that the verdict rests on."""
    found = {(row["id"], row["set"]): row for row in rows}
    practice = found.get(("practice", MAIN), {})
    wanted = {"practice's gain": practice.get("gain_each_seed", [])}
    for arm in UNTOLD:
        wanted[f"its lead on {arm}"] = found.get((arm, MAIN), {}).get("practice_ahead_each_seed", [])
    held_out = found.get(("practice", HELD_OUT), {}).get("gain_each_seed", [])
    wanted["gain on held-out kinds beyond half"] = _beyond_half(held_out, wanted["practice's gain"])
    return {name: Compared(values) for name, values in wanted.items() if values}


def show(rows: Sequence[Row]) -> str:
    """Write one line an arm and suite, and the first seed's answers before and after practice."""
    more = (
        Column("still known [runs]", each_over_runs("known", percent), needs="known"),
        Column("right answers kept [runs]", each_over_runs("kept", percent), needs="kept"),
    )
    answers: list[dict[str, str]] = next((row["answers"] for row in rows if row.get("answers")), [])
    lines = [[_shown(each[name]) for name in ("question", "before", "after")] for each in answers]
    said = f"The first {len(lines)} requests of the first seed that practice turned right, with the greedy answers."
    own = markdown(["request", "before", "after"], lines, said) if lines else ""
    return "\n".join(filter(None, [arms_table(rows, more=more, start="the model as it came"), own]))


def _shown(text: str) -> str:
    """Return a text of a model in a line of Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def find(chosen: Options) -> Found:
    if chosen.is_tiny:
        family = {"tasks.family": "instructions", "tasks.parameters": {}, "soundness_guard": True, "warm_start.steps": 0}
        table = Instructed("tiny", {}, TINY_RUN | family, changes(3, 6, 3), has_retention=False)
    else:
        table = Instructed("quickstart", {}, RUN, CHANGES)
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in ARMS], table, chosen)
    rows = reduce(cells)
    return cells, rows, judge(rows) if not chosen.is_tiny else undecided()


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    data="science_mcq, mmlu, gutenberg_books and openstax_anatomy",
    rule="practice's gain is >= 25 points, it is ahead of imitation, sft_own, form_only, random_reward and best_of_8, its gain on held-out "
    f"kinds is at least half of that, and it still knows >= 98 %, each {RULE}",
    compared=rests_on,
)

if __name__ == "__main__":
    STUDY.main()
