"""Does a model answer more reliably when it has learned from answers that it joined of its own, and is it the joining that helps?

    python -m studies.self_training --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

SmolLM2-135M practises on questions of WebQuestions whose answers nobody reads, until it has sampled the same number of tokens, those of
joint answers among them:

joined         each question's target is one answer, decoded from eight samples at once (integrative decoding)
joined_sure    the same where three quarters of the inputs, on average over its tokens, find the joint answer's likeliest; other questions
               are left out
joined_pairs   the joint answer is preferred to samples that say something else (direct preference)
largest_cluster  the target is the first sample of the largest cluster of like meaning: choosing without joining
joined_short   joined with answers of 24 tokens at most, as they are asked for in the end, not 64: those that are cut off are left out
single         the target is a sample, the only one of its question: plain self-training, with eight times the questions
single_alike   the target is the first of eight samples: the same questions and samples as joined
gold           policy gradient on the verifier's scores of the eight samples: what knowing the answers is worth

`start` is the model as it came. All are asked 500 questions of WebQuestions that none practised on and 500 of TriviaQA: greedy answers, and
for the first 200 of each eight samples: how many are in the largest cluster of like meaning (`agreement`), how often its first is right,
and, where that is given only if half of them agree, how many are given and right. SmolLM2-135M answers in sentences, of which no two are
equal, so that nothing is said by counting equal ones. A collapse that a run's alarm sees is told, and stops nothing. `joined_sure`,
`joined_short`, `largest_cluster`, `single_alike` and `gold` are screens of one seed, the others have three.

Claim: joined is right more often than start and than single on WebQuestions (greedy answers, paired over questions, three seeds).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from etude.decoding.abstain import abstain
from etude.decoding.sample_pool import SamplePool
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import decide, engine_at, room_tokens
from etude.engine.sampling import GREEDY
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.calibration import expected_calibration_error, risk_coverage
from etude.evaluation.statistics import mean_interval, shares_interval
from etude.models.embedding import load_embedder
from etude.models.load import load_model
from etude.rollouts.prompts import render_prompts
from etude.suites.retention_probe import logprobs_of
from etude.tasks.actions import with_instruction
from etude.tasks.task import Task
from etude.training.run_folder import environment, read_jsonl
from studies.arms import TINY_RUN, Arms, difference, run_of
from studies.cells import Cell, Options, compute, options, write_result
from studies.decoding import MAX_NEW_TOKENS
from studies.figure import accuracies, save
from studies.questions import INSTRUCTION, SETS, TINY_SETS, Questions

CLAIM = "a model that learned from its own joint answers is right more often than before, and than one that learned from single samples"
SEEDS = (95, 96, 97)
START = "start"
ONE = {"self_training.decoding.method": "majority", "self_training.decoding.k": 1}
LARGEST: dict[str, Any] = {"method": "abstain", "confidence": "clusters", "min_confidence": 0.0}
CHANGES: dict[str, dict[str, Any]] = {
    "joined": {},
    "joined_sure": {"self_training.by": "tokens", "self_training.min_share": 0.75},
    "joined_pairs": {"learn.method": "preference", "learn.keep_all_right": False},
    "joined_short": {"explore.max_new_tokens": 24},
    "largest_cluster": {f"self_training.decoding.{name}": value for name, value in LARGEST.items()},
    "single": ONE | {"explore.num_samples": 1, "explore.tasks_per_step": 128},
    "single_alike": ONE,
    "gold": {"feedback": "outcome", "learn.method": "credit", "learn.keep_all_right": False},
}
ARMS = (START, *CHANGES)
RUN: dict[str, Any] = {"steps": 1000, "budget_tokens": 40_000, "evaluation.n": 40, "evaluation.pass_n": 0, "evaluation.num_samples": 0}
RUN |= {"checkpoint_every": 0, "retention.probe": True, "collapse.action": "warn", "collapse.fall": 0.25}
RUN |= {"learn.method": "imitation", "learn.keep_all_right": True}
SCREENS = ("joined_sure", "joined_short", "largest_cluster", "single_alike", "gold")
"""Arms of the first seed alone."""
TINY_ARMS = (START, "joined", "single", "joined_pairs")
TINY = TINY_RUN | {"retention.probe": True, "retention.n": 10, "retention.text_tokens": 200}
TINY_TAUGHT = {"feedback": "self_training", "self_training.decoding.k": 2, "learn.method": "imitation", "learn.keep_all_right": True}
ASKED = ("webquestions", "triviaqa")
SAMPLED, K, BATCH = 200, 8, 8
"""Questions of which samples are drawn, how many of each, and how many are answered at once."""
GIVEN = 0.5
"""Share of the samples in the largest cluster from which on an answer is given."""


@dataclass(frozen=True)
class SelfTrained(Arms):
    """Runs from one model, each of which is asked the same questions at its end."""

    sets: Mapping[str, Questions] = field(default_factory=lambda: {name: SETS[name] for name in ASKED})

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return super().settings(arm, seed) | {"asked": {"sets": list(self.sets), "sampled": SAMPLED, "k": K, "instruction": INSTRUCTION}}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """A run under `out/runs`, which keeps its model, and what it answers."""
        settings, folder = self._settings(arm, seed), chosen.out / "runs" / f"{arm}-{seed}"
        model, cell = settings.model, dict[str, Any]()
        if arm != START:
            cell = _course(folder, run_of(settings, self.recipe, folder, chosen.data))
            model = str(folder / "model")
        place, facts = decide(settings.machine), environment()
        loaded, tokenizer = load_model(model, device=place.device)
        engine, room = engine_at(place, loaded, tokenizer, settings.machine), room_tokens(loaded, MAX_NEW_TOKENS)
        how = {"room_tokens": room, "names": (seed, "asked"), "logprobs": logprobs_of(loaded, place, settings.machine)}
        where = {"commit": facts["commit"], "hardware": f"{facts['processor']}, {facts['threads']} threads, {place.precision}"}
        return where | cell | {"sets": {name: _asked(engine, own, chosen.data, how) for name, own in self.sets.items()}}


def _course(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """What the run did, from its first tenth to its last."""
    steps = [row for row in read_jsonl(folder / "metrics.jsonl") if row["phase"] == "practice"]
    part = max(1, len(steps) // 10)
    ends = {"first": steps[:part], "last": steps[-part:]}
    found = {
        f"{name}_{end}": round(fmean(row[name] for row in some), 4) for end, some in ends.items() for name in ("vote_share", "entropy")
    }
    known = [(page["model"], page["choice_accuracy"]) for page in result.get("retention", ())]
    collapse = result.get("collapse")
    return {
        "practice_steps": len(steps),
        "sampled_tokens": sum(row["sampled_tokens"] for row in steps),
        "left_out": sum(row.get("own_answers_abstained", 0) for row in steps) / max(1, sum(row.get("own_answers", 0) for row in steps)),
        "old_knowledge": dict(known),
        "collapse": collapse and collapse["words"],
        **found,
    }


def _asked(engine: TransformersEngine, questions: Questions, data: Path | None, how: dict[str, Any]) -> dict[str, Any]:
    """A model's answers to a set: greedy ones as 1 and 0, and of the first questions what samples say; `how`: what a `Pool` takes."""
    tasks = with_instruction(questions.load(data), INSTRUCTION)
    prompts = render_prompts(engine.tokenizer, tasks, how["room_tokens"])
    greedy = [each.text for (each,) in engine.generate(prompts, max_new_tokens=MAX_NEW_TOKENS, sampling=GREEDY)]
    found: dict[str, list[Any]] = {"agreement": [], "largest": [], "found": [], "given": []}
    sure = ReliableDecoding(k=K, **LARGEST)
    how = how | {"samples": sure.sampling, "max_new_tokens": MAX_NEW_TOKENS, "embed": load_embedder(sure.embedder)}
    for start in range(0, min(SAMPLED, len(tasks)), BATCH):
        some = slice(start, min(start + BATCH, SAMPLED))
        pool = SamplePool(engine, tasks[some], prompts[some], **how)
        for task, largest, own in zip(pool.tasks, abstain(pool, **sure.options), pool.completions(), strict=True):
            found["agreement"].append(round(largest.confidence or 0.0, 4))
            found["largest"].append(_bit(largest.text, task, questions))
            found["found"].append(str(int(any(questions.is_right(each.text, task) for each in own))))
            found["given"].append(found["largest"][-1] if found["agreement"][-1] >= GIVEN else "-")
        pool.release()
    bits = {kind: "".join(values) for kind, values in found.items() if kind != "agreement"}
    return {"right": "".join(_bit(*each, questions) for each in zip(greedy, tasks, strict=True)), "agreement": found["agreement"], **bits}


def _bit(text: str | None, task: Task, questions: Questions) -> str:
    return "-" if text is None else str(int(questions.is_right(text, task)))


# ---------------------------------------------------------------------- from cells to rows


def reduce(cells: Sequence[Cell], arms: Sequence[str] = ARMS) -> list[dict[str, Any]]:
    """A row for every arm and set, pooled over seeds: what it gains on the start, and on single samples, paired over questions, by the
    seeds that both have.
    """
    by_arm = {arm: [cell for cell in cells if cell["id"] == arm] for arm in arms}
    names = list(cells[0]["sets"]) if cells else []
    return [_row(arm, name, by_arm) for name in names for arm in arms if by_arm[arm]]


def _row(arm: str, name: str, by_arm: Mapping[str, Sequence[Cell]]) -> dict[str, Any]:
    own = by_arm[arm]
    right = _of_items(own, name, "right")
    low, high = shares_interval([fmean(bits) for bits in right.values()])
    row: dict[str, Any] = {"id": arm, "set": name, "n": len(right), "seeds": len(own), "accuracy": fmean(map(fmean, right.values()))}
    row |= {"accuracy_low": low, "accuracy_high": high}
    row["accuracy_each_seed"] = [round(fmean(bit == "1" for bit in cell["sets"][name]["right"]), 4) for cell in own]
    for other, said in ((START, "gain"), ("single", "single_behind"), ("single_alike", "single_alike_behind")):
        seeds = {cell["seed"] for cell in by_arm.get(other, ())} & {cell["seed"] for cell in own}
        if arm not in (START, other) and seeds:
            both = [[cell for cell in by_arm[each] if cell["seed"] in seeds] for each in (other, arm)]
            row |= difference(said, *(_of_items(cells, name, "right") for cells in both))
    pages = [cell["sets"][name] for cell in own]
    agreement = [fmean(values) for values in zip(*(page["agreement"] for page in pages), strict=True)]
    ends = mean_interval(agreement)
    row |= {"agreement": fmean(agreement), "agreement_low": ends[0], "agreement_high": ends[1], "sampled_n": len(agreement)}
    row |= {kind: fmean(bit == "1" for page in pages for bit in page[kind]) for kind in ("largest", "found")}
    given = [bit for page in pages for bit in page["given"]]
    row |= {"given": fmean(bit != "-" for bit in given), "given_right": fmean([bit == "1" for bit in given if bit != "-"] or [0])}
    pairs = [pair for page in pages for pair in zip(page["agreement"], page["largest"], strict=True) if pair[1] != "-"]
    if pairs:
        confidences, rights = [share for share, _ in pairs], [bit == "1" for _, bit in pairs]
        row |= {"ece": expected_calibration_error(confidences, rights), "aurc": fmean(risk_coverage(confidences, rights))}
    for fact in ("sampled_tokens", "left_out", "vote_share_first", "vote_share_last"):
        values = [cell[fact] for cell in own if fact in cell]
        row |= {fact: fmean(values)} if values else {}
    row["collapsed"] = sum(bool(cell.get("collapse")) for cell in own)
    return row


def _of_items(cells: Sequence[Cell], name: str, kind: str) -> dict[str, list[int]]:
    """Of each question whether the answer is right, a value a seed."""
    each = zip(*(cell["sets"][name][kind] for cell in cells), strict=True)
    return {str(place): [int(bit == "1") for bit in bits] for place, bits in enumerate(each)}


def seeds_of(arm: str) -> tuple[int, ...]:
    """Those that it is computed with."""
    return SEEDS[:1] if arm in SCREENS else SEEDS


def judge(rows: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> tuple[str, str]:
    """The verdict on the claim, from the rows of WebQuestions."""
    own = {row["id"]: row for row in rows if row["set"] == ASKED[0]}
    missing = [arm for arm in arms if arm not in own or own[arm]["seeds"] < len(seeds_of(arm))]
    if missing:
        return "undecided", f"not all runs are there: {', '.join(missing)}"
    row = own["joined"]
    said = [
        f"{words} {100 * row[name]:+.1f} points [{100 * row[f'{name}_low']:+.1f}, {100 * row[f'{name}_high']:+.1f}]"
        for name, words in (("gain", "on the start"), ("single_behind", "on single samples"))
    ]
    holds = row["gain_low"] > 0 and row["single_behind_low"] > 0
    return ("holds" if holds else "does not hold"), f"joined gains {' and '.join(said)}"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write an SVG: greedy accuracy of every arm with its interval, a panel a set; the line is the start."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(3.8 * len(sets), 3.0), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        own = [row for row in rows if row["set"] == name]
        colours = ["#1f2a44" if row["id"].startswith("joined") else "#c2571a" if row["id"] == "gold" else "#9aa3b5" for row in own]
        accuracies(axes, own, colours, f"{name}, greedy (n = {own[0]['n']:,}, {max(row['seeds'] for row in own)} seeds)")
        for place, (row, colour) in enumerate(zip(own, colours, strict=True)):
            axes.plot(row["accuracy_each_seed"], [place] * row["seeds"], "|", color=colour, markersize=8)
        if own[0]["id"] == START:
            axes.axvline(own[0]["accuracy"], color="#53606f", linewidth=1, linestyle=":")
    return save(figure, path)


def main(chosen: Options) -> None:
    if chosen.data is None and not chosen.is_tiny:
        raise SystemExit(str(UserError("--data DIR is needed: the folder that holds webquestions and openqa_false_answers")))
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    if chosen.is_tiny:
        changes = {arm: TINY_TAUGHT | own for arm, own in CHANGES.items()}
        changes["single"] |= {"explore.tasks_per_step": 12}
        table = SelfTrained("tiny", {}, TINY, {START: {"steps": 0}, **changes}, {"letters": TINY_SETS["letters"]})
    else:
        table = SelfTrained("short_answers", {}, RUN, {START: {"steps": 0}, **CHANGES})
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms if seed in seeds_of(arm)], table, chosen)
    rows = reduce(cells, arms)
    verdict, because = ("undecided", "a random model answers letters") if chosen.is_tiny else judge(rows, arms)
    write_result(chosen, CLAIM, cells, rows, verdict, because, picture=draw)


if __name__ == "__main__":
    main(options("self_training", ARMS, SEEDS))
