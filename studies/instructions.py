"""Does practice teach what only a verifier can tell? The quickstart beside controls that read no gold answer, on unseen seeds.

    python -m studies.instructions --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

practice             the quickstart: policy gradient on the share of rules that an answer follows
imitation            imitation of own right attempts: the same tasks and attempts a step
sft_own              all attempts sampled before the first update, by the model as it came, and as many updates on the right ones
form_only            practice on another score: 1 for an answer that is not empty, whatever rules it follows
random_reward        practice on random scores of the same rate
best_of_8            no training: of eight samples the one with the highest mean log-prob a token, at the sampling temperature
demonstrations       supervised fine-tuning on answers that templates write (`experiments.instruction_templates`), as many updates: a
                     control that is told right answers, which the others are not
practice_unbounded   practice without `interpolation`: as much as it learns, whatever it forgets
imitation_unbounded  imitation without it

An answer is right if it follows all rules and is sound (`etude.callbacks.soundness_guard`). Suites: `quickstart` has the kinds of rules
that training has, `held_out` other kinds, `three_rules` three of the kinds of training at once, where training has one or two.

**Gains are compared at equal forgetting.** Of what it learns a method can buy more with more of the old knowledge, and methods differ in
the price (docs/instructions.md). So every arm that practises, imitates or fits goes back towards the start until its divergence on a
general text, KL(start || model), is at most 0.025 nats a token (`interpolation.max_kl`; demonstrations, which are beside the claim, end
where they end). The bound is practice's on dev, where runs near it gained 25 to 34 points and still knew 97.5 to 99.2 % of what they knew
with a margin (LOG.md). The unbounded arms show what the bound costs.

Claim, judged by runs (`experiments.runs`): (1) practice gains at least 25 points over the model as it came, (2) it is ahead of every
control that is told no right answer, (3) its gain on held-out kinds is at least half of its gain on those of training, and (4) of the
questions that the model knew with a margin it still knows at least 98 %. Power: with a standard deviation of 4
points between the differences of seeds, ten show a lead of 4 points in 80 % of studies, and three one of 10. Practice and imitation, its
strongest control, have ten; arms that are far from practice or beside the claim have three (`sft_own` was at least 21 points below it in
both of its first seeds, `best_of_8` has no training).

What an arm costs of the old knowledge is measured by the retention suite, with the model as it came to compare with: `known`, the
divergence on other texts, and of practice also `kept`, the share still right of its right greedy answers.
"""

import html
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from etude.callbacks.soundness_guard import SoundnessGuard
from etude.files import write_atomically
from etude.randomness import seed_for
from etude.rollouts.batch import RolloutBatch
from etude.suites.general_knowledge import SHIPPED
from etude.suites.retention import RETENTION
from etude.suites.retention_changes import CHAT
from etude.training.callback import Metrics
from etude.training.run_folder import RunFolder
from experiments.arms import TINY_RUN, Arms, all_there, reduce_arms
from experiments.cells import Cell, Options, compute, made_here
from experiments.instruction_templates import demonstrations
from experiments.measures import Verdict, all_hold, undecided
from experiments.prepared_run import prepared_run
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Changed, Compared, Found, Study
from experiments.tables import Column, Row, arm_column, markdown, mean_over_runs, percent, points, seeds_of, table, value

CLAIM = (
    "practice on instructions with rules gains >= 25 points over the model as it came, is ahead of every control that is told no right "
    "answer, brings at least half of the gain to held-out kinds of rules, and keeps >= 98 % of what the model knew"
)
SEEDS = (*range(123, 127), *range(128, 134))
MAIN, HELD_OUT = "quickstart", "held_out"
DEMONSTRATIONS = "runs/instructions/demonstrations.jsonl"
SUITES = {HELD_OUT: {"rules": "held_out"}, "three_rules": {"min_rules": 3, "max_rules": 3}}
RUN: dict[str, Any] = {"evaluation.n": 1000, "evaluation.pass_n": 100, "evaluation.num_samples": 8, "evaluation.parameters": SUITES}


def changes(steps: int, tasks: int, updates: int) -> dict[str, dict[str, Any]]:
    """Return the arms, and what each has otherwise than a practice of so many steps of so many tasks, with so many updates."""
    imitation = {"learn.method": "imitation", "down_sampling": False, "overlong_penalty": False}
    everything = {"steps": 1, "rollout.tasks_per_step": steps * tasks, "learn.minibatches_per_epoch": updates}
    return {
        "practice": {},
        "imitation": imitation,
        "sft_own": imitation | everything,
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
        "practice_unbounded": {"interpolation": False},
        "imitation_unbounded": imitation | {"interpolation": False},
    }


CHANGES = changes(steps=30, tasks=16, updates=60)
ARMS = tuple(CHANGES)
UNTOLD = ("imitation", "sft_own", "form_only", "random_reward", "best_of_8")
"""Controls that are told no right answer."""
FEWER, FEW = tuple(arm for arm in ARMS if arm not in ("practice", "imitation")), 3
"""Arms that are far from practice or beside the claim, and how many seeds they have, the first ones."""
KNOWN = 0.98
KEPT = ("known", "above chance", "kept", "newly right", "divergence")
"""Parts of the retention suite that a cell keeps."""
LIKELIHOODS_ONLY = {"instructions": 0, "families": [], "closed_book": 0, "chat_prompts": 0}
"""Settings of the retention suite for other arms than practice: nothing is generated."""
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
        more = partial(self._kept, arm=arm, seed=seed, data=chosen.data)
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

    def _kept(self, folder: RunFolder, arm: str, seed: int, data: Path | None) -> Cell:
        """Return what the arm's model kept of what the model as it came knew; of practice also answers, kept and turned right."""
        found = {"answers": _turned_right(folder)} if arm == "practice" else {}
        if not self.has_retention:
            return found
        less = {} if arm == "practice" else LIKELIHOODS_ONLY
        against = {"against": self._settings(arm, seed).model, "floor": False}
        measured = RETENTION.evaluate(str(folder.path / "model"), None, against | less, data=data)
        return found | {
            "retention": [{name: row[name] for name in ("part", "name", "n", "value")} for row in measured["rows"] if row["part"] in KEPT]
        }


def _turned_right(folder: RunFolder) -> list[dict[str, str]]:
    """Return the first readable answers of the main suite that training turned right, with the request and the answer before."""
    before, after = (folder.read_json(f"evaluation/{name}.json")["suites"][0]["items"] for name in ("base", "practice"))
    learned = [(then, now) for then, now in zip(before, after, strict=True) if now["score"] == 1.0 != then["score"]]
    readable = [pair for pair in learned if _is_readable(pair[1]["text"])]
    return [{"question": now["question"], "before": then["text"], "after": now["text"]} for then, now in readable[:SHOWN]]


def _is_readable(answer: str) -> bool:
    """Say whether an answer has six words or more, and no word of four letters or more twice.

    >>> _is_readable("A kitchen is a kitchen of your mind."), _is_readable("The smell of bread is like a song.")
    (False, True)
    """
    words = re.findall(r"[a-z]+", answer.lower())
    long = [word for word in words if len(word) >= 4]
    return len(words) >= 6 and len(set(long)) == len(long)


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for each arm and suite; those of the main suite have what an arm kept of the old knowledge."""
    bases = {cell["seed"]: cell["right"]["base"] for cell in cells if cell["id"] == "practice"}
    complete = [
        cell if "base" in cell["right"] else {**cell, "right": {**cell["right"], "base": bases[cell["seed"]]}}
        for cell in cells
        if "base" in cell["right"] or cell["seed"] in bases
    ]
    rows = reduce_arms(complete, ARMS, start="base")
    for row in rows:
        if row["set"] == MAIN:
            row |= _retained([cell["retention"] for cell in cells if cell["id"] == row["id"] and "retention" in cell])
        if row["id"] == "practice" and row["set"] == MAIN:
            row["answers"] = next((cell["answers"] for cell in cells if "answers" in cell), [])
    return rows


def _retained(found: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the shares known and kept of every seed, and the divergence in nats a token, each over all items.

    The divergence is that on other texts than the shipped one, which arms are bounded on.
    """
    measured: dict[str, Any] = {}
    for part, name, without in (("known", "known", ()), ("kept", "kept", ()), ("divergence", "forgetting", (CHAT, SHIPPED))):
        own = [[row for row in rows if row["part"] == part and row["name"] not in without] for rows in found]
        values = [sum(row["value"] * row["n"] for row in rows) / sum(row["n"] for row in rows) for rows in own if rows]
        measured |= {name: fmean(values), **over_runs(name, values)} if values else {}
    return measured


def judge(rows: Sequence[Row], seeds: int = len(SEEDS), main: str = MAIN) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {(row["id"], row["set"]): row for row in rows}
    own = [row for row in rows if row["set"] == main]
    few = [arm for arm in UNTOLD if arm in FEWER]
    if not all_there(own, seeds, ["practice", *(arm for arm in UNTOLD if arm not in few)]) or not all_there(own, min(FEW, seeds), few):
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
    """Write one line an arm, over all its suites."""
    sets = {(row["id"], row["set"]): row for row in rows}

    def gain_on(suite: str) -> Callable[[Row], str]:
        return lambda row: mean_over_runs("gain", points)(sets.get((row["id"], suite), {}))

    columns = [
        arm_column(rows),
        Column("right", value("accuracy", percent)),
        Column("gain [runs]", gain_on(MAIN)),
        Column("gain, held-out kinds [runs]", gain_on(HELD_OUT)),
        Column("gain, three rules [runs]", gain_on("three_rules")),
        Column("practice minus arm [runs]", mean_over_runs("practice_ahead", points)),
        Column("still known [runs]", mean_over_runs("known", percent)),
        Column("right answers kept [runs]", mean_over_runs("kept", percent), needs="kept"),
        Column("KL(start || now) on other texts, nats a token [runs]", mean_over_runs("forgetting", "{:.3f}".format)),
        Column("training", value("training_seconds", "{:.0f} s".format)),
        Column("tokens sampled", value("sampled_tokens", "{:,.0f}".format)),
    ]
    items = ", ".join(f"{row['n']:,} of {row['set']}" for row in rows if row["id"] == rows[0]["id"])
    below = (
        f"Greedy answers to {items}; {seeds_of(rows)}, whose tasks differ. [runs]: mean over seeds and 95 % t interval over them. "
        "Trained arms end within 0.025 nats a token of the start on the shipped text; demonstrations and unbounded arms do not."
    )
    return table([row for row in rows if row["set"] == MAIN], columns, below)


def show_short(rows: Sequence[Row]) -> str:
    """Write one line for each arm that ends at the same divergence, with the few columns that a first look needs."""
    other = {row["id"]: row for row in rows if row["set"] == HELD_OUT}
    columns = [
        arm_column(rows),
        Column("right", value("accuracy", percent)),
        Column("gain", mean_over_runs("gain", points)),
        Column("gain, other kinds of rules", lambda row: mean_over_runs("gain", points)(other.get(row["id"], {}))),
        Column("practice ahead by", mean_over_runs("practice_ahead", points)),
        Column("training", value("training_seconds", "{:.0f} s".format)),
    ]
    own = [row for row in rows if row["set"] == MAIN and row["id"] in ("base", "practice", *UNTOLD)]
    n = own[0]["n"]
    return table(own, columns, f"Points, with 95 % intervals over runs; {seeds_of(own)}, {n:,} new requests in all.")


def show_answers(rows: Sequence[Row]) -> str:
    """Write the first seed's answers before and after practice."""
    answers: list[dict[str, str]] = next((row["answers"] for row in rows if row.get("answers")), [])
    shown = [[_shown(each[name]) for name in ("question", "before", "after")] for each in answers]
    said = (
        f"The first {len(shown)} requests of the first seed that practice turned right, by a greedy answer of six words or more that "
        "has no word of four letters or more twice."
    )
    return markdown(["request", "before", "after"], shown, said)


def _shown(text: str) -> str:
    """Return a text of a model in a line of Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def find(chosen: Options) -> Found:
    if chosen.is_tiny:
        family = {"tasks.family": "instructions", "tasks.parameters": {}, "soundness_guard": True, "warm_start.steps": 0}
        table = Instructed("tiny", {}, TINY_RUN | family, changes(3, 6, 3), has_retention=False)
    else:
        table = Instructed("quickstart", {}, RUN, CHANGES)
    todo = [(arm, seed) for seed in chosen.seeds for arm in ARMS if arm not in FEWER or seed in SEEDS[:FEW]]
    cells = compute(todo, table, chosen)
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
    rule="each trained arm at KL(start || model) <= 0.025 on the shipped text: practice's gain is >= 25 points, it is ahead of imitation, "
    "sft_own, form_only, random_reward and best_of_8, its gain on held-out kinds is at least half of that, and it still knows >= 98 %, "
    f"each {RULE}",
    compared=rests_on,
    extracts={"instructions_short": show_short, "instructions_answers": show_answers},
    changed=Changed(
        "undecided",
        "2026-12-02, after one seed (120, not used any more) of practice and imitation, both half of the way back to the start: they ended "
        "level (-0.8 points) on the kinds of training, and imitation had moved five to seven times as far on other texts (one run on dev). "
        "So arms are compared at the same divergence. Seeds that were seen are not used: 122 (a factor of 0.4: +25.7 points), 121 and 127 "
        "(a bound of 0.02 nats, which dev had chosen in windows of 256 tokens and a run measures in windows of 64: +21.1 and +24.7)",
    ),
)

if __name__ == "__main__":
    STUDY.main()
