"""Do methods of decoding answer more rightly than greedy decoding, and is it what they say they do that helps?

    python -m studies.decoding --data DIR [--hours H] [--only ID ...] [--tiny]

SmolLM2-135M answers open questions in a few words by every method of `etude.decoding` beside its greedy answers, from one pool of samples a
question. A cell is a fifth of a set of questions and a number k of samples: TriviaQA, Natural Questions and WebQuestions (500 questions
each; right is an answer that says one of the gold answer's names), TruthfulQA (all 410; right is an answer nearer to a true than to a false
one, by ROUGE-L, and in a column of its own by embeddings). With 1 and with 8 samples all are asked, otherwise two fifths.
`layer_candidates_cycle` chooses by coming back to the question. `sure_entropy` and `sure_clusters` are the majority and the largest cluster
of like meaning, given always: how well their confidence is calibrated. What does not depend on k is computed at k = 1. Seconds are this
process's own beside greedy decoding of the same questions, eight at a time, those of drawing the samples included. With 1 and 4 samples a
second model answers two fifths too, which practised on the training questions of WebQuestions with their answers (`practised`; its run is
kept under `runs`).

`context_contrast` is asked what has evidence: 500 questions of bAbI, 125 each of four tasks, about the facts before them (`stories`; right
is an answer that says the gold one and none of the task's others, but for those that the question, or a fact about the gold one, names; and
`said` is the share that says it at all). `context_alone`, its strength 0, is plain decoding behind the facts, from which gains are counted
there; greedy answers are without.

Claim: with eight samples integrative decoding is right more often than greedy decoding over all sets (paired, 95 %), and more often than
each control: wordings without samples, samples of other questions, one sample, the likeliest sample.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from etude.decoding.methods import METHODS
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine, max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.engine.sampling import GREEDY
from etude.evaluation.calibration import expected_calibration_error, risk_coverage
from etude.evaluation.text_counts import count_text
from etude.evaluation.truthful import truth_by
from etude.models.embedding import Embed, load_embedder
from etude.models.load import load_model
from etude.rollouts.prompts import render_prompts
from etude.settings.configuration import to_plain_values
from etude.suites.retention_probe import logprobs_of
from etude.tasks.actions import add_instruction
from etude.tasks.task import Task
from etude.training.parse import practice_defaults
from etude.training.settings import PracticeSettings
from experiments.arms import TINY_RUN, run_of, settings_of
from experiments.cells import Cell, Options, compute, made_here
from experiments.figures import list_rows, save
from experiments.measures import Verdict, decided, gain, in_points, share, undecided
from experiments.questions import INSTRUCTION, OF_SECOND, SECOND, SEED, SETS, STORIES, TINY_SETS, N, Questions, says_a_name
from experiments.study import Found, Study
from experiments.tables import Column, Row, interval, percent, points, table, value

CLAIM = "with eight samples integrative decoding is right more often than greedy decoding over all sets, and more often than each control"
SEEDS = (SEED,)
MANY, OF_MANY = 16, ("integrative", "majority", "best_logprob")
"""More samples, for some of the methods."""
BATCH, MAX_NEW_TOKENS = 8, 24
PARTS = 5
"""Into how many a set is parted."""
ASKED = {8: PARTS, 1: PARTS, 4: 2, 2: 2, MANY: 2}
"""How many parts are asked, by the number of samples."""
MODEL = "smollm2-135m"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "layer_candidates_cycle": ("layer_candidates", {"choose": "cycle"}),
    "sure_entropy": ("abstain", {"confidence": "entropy", "min_confidence": 0.0}),
    "sure_clusters": ("abstain", {"confidence": "clusters", "min_confidence": 0.0}),
}
"""Methods with other settings than their own."""
ALONE = "context_alone"
TOLD: dict[str, dict[str, Any]] = {ALONE: {"strength": 0.0}, "context_contrast_half": {"strength": 0.5}, "context_contrast": {}}
"""What answers questions with evidence, and its settings of `context_contrast`."""
COLOURS = ("#9aa3b5", "#0b7a6c", "#1f5fd6", "#1f2a44", "#8a4fbf")
CONTROLS = ("integrative_original", "integrative_unrelated", "integrative_same_sample", "best_logprob")

ARMS = [f"{name}_k{k}_{part}" for part in range(PARTS) for k, parts in ASKED.items() for name in SETS if part < parts] + [
    f"{name}_k{k}_{part}" for part in range(ASKED[4]) for name in OF_SECOND for k in (4, 1)
]
ARMS += [f"{name}_k1_{part}" for part in range(PARTS) for name in STORIES]
TINY_ARMS = ["letters_k1_0", "letters_k2_0", "letters_k2_1", f"{SECOND}_letters_k2_0", "told_k1_0"]
PRACTICE = {
    "reward": "verifier",
    "learn.method": "policy_gradient",
    "learn.include_solved_groups": False,
    "evaluation.n": 40,
    "evaluation.pass_n": 0,
}


class Arm(NamedTuple):
    """What a cell is of."""

    set: str
    k: int
    part: int

    @classmethod
    def of(cls, cell: str) -> "Arm":
        name, _, numbers = cell.rpartition("_k")
        return cls(name, *map(int, numbers.split("_")))

    @property
    def is_of_second(self) -> bool:
        return self.set.startswith(SECOND)


def methods_at(k: int) -> list[str]:
    """Return the methods for questions without evidence: those that depend on k, and with one sample all but those that need evidence."""
    if k == MANY:
        return list(OF_MANY)
    own = [name for name, method in METHODS.items() if name != "context_contrast" and (k == 1 or "k" in method.reads)]
    return [*own, *VARIANTS]


def how_of(name: str, k: int) -> ReliableDecoding:
    """Return the settings of a method or variant."""
    method, changes = ("context_contrast", TOLD[name]) if name in TOLD else VARIANTS.get(name, (name, {}))
    return ReliableDecoding(method, k=k, **changes)


class Answering:
    """A cell for every set and number of samples."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else MODEL
        self.sets = TINY_SETS if is_tiny else SETS | OF_SECOND | STORIES

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        name, k, part = Arm.of(arm)
        how = {method: asdict(how_of(method, k)) for method in self._methods(name, k)}
        sizes = {"max_new_tokens": MAX_NEW_TOKENS, "n": N, "part": part, "parts": PARTS, "batch": BATCH, "instruction": INSTRUCTION}
        trained = to_plain_values(self._practised(seed)) if self.sets[name].is_of_second else None
        return {"model": self.model, "set": name, "methods": how, **sizes, **({"trained": trained} if trained else {})}

    def _methods(self, name: str, k: int) -> list[str]:
        return list(TOLD) if self.sets[name].has_evidence else methods_at(k)

    def _practised(self, seed: int) -> PracticeSettings:
        recipe, changes = ("tiny", TINY_RUN) if self.is_tiny else ("short_answers", PRACTICE)
        return settings_of(recipe, {**changes, "seed": seed})

    def defaults(self) -> dict[str, Any]:
        return {f"trained.{name}": value for name, value in practice_defaults().items()}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Answer by every method: 1, 0 and - for none, how much it says, and what it cost."""
        name, k, part = Arm.of(arm)
        questions, machine = self.sets[name], Machine()
        place = resolve_device(machine)
        answering = self.model
        if questions.is_of_second:
            folder = chosen.out / "runs" / f"{SECOND}-{seed}"
            run_of(self._practised(seed), SECOND, folder, chosen.data)
            answering = str(folder / "model")
        model, tokenizer = load_model(answering, device=place.device)
        engine, room = engine_at(place, model, tokenizer, machine), max_prompt_tokens(model, MAX_NEW_TOKENS)
        every = add_instruction(questions.load(chosen.data), INSTRUCTION)
        tasks = every[len(every) * part // PARTS : len(every) * (part + 1) // PARTS]
        prompts = render_prompts(tokenizer, tasks, room)
        how: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "room_tokens": room, "names": (seed, "study")}
        how |= {"samples": ReliableDecoding().sampling, "logprobs": logprobs_of(model, place, machine)}
        embed = load_embedder()
        found = Answered(self._methods(name, k))
        for start in range(0, len(tasks), BATCH):
            pool = SamplePool(engine, tasks[start : start + BATCH], prompts[start : start + BATCH], **how, embed=embed)
            found.answer(pool, k)
            pool.release()
        return {
            **made_here(place.precision),
            "methods": found.rows(tasks, questions, embed),
        }


class Answered:
    """What the methods answered so far, and what it took."""

    def __init__(self, methods: Sequence[str]) -> None:
        self.methods = methods
        self.answers: dict[str, list[DecodedAnswer]] = {}
        self.seconds: dict[str, float] = {}
        self.tokens: dict[str, int] = {}

    def answer(self, pool: SamplePool, k: int) -> None:
        """Answer some questions by every method from the same samples."""
        self._timed("greedy", pool, partial(_greedy, pool))
        if ALONE not in self.methods:
            self._timed("sampled", pool, partial(_first_samples, pool, k))
        for name in self.methods:
            how = how_of(name, k)
            self._timed(name, pool, partial(METHODS[how.method].answer, pool, **how.options))

    def _timed(self, name: str, pool: SamplePool, work: Callable[[], list[DecodedAnswer]]) -> None:
        start, drawn = time.process_time(), sum(pool.sampled_tokens)
        self.answers.setdefault(name, []).extend(work())
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start
        self.tokens[name] = self.tokens.get(name, 0) + sum(pool.sampled_tokens) - drawn

    def rows(self, tasks: Sequence[Task], questions: Questions, embed: Embed) -> dict[str, dict[str, Any]]:
        """Return a row a method; one that samples, or draws candidates, costs also what the first one to be asked took for these."""
        found = {}
        for name, answers in self.answers.items():
            method = METHODS.get(VARIANTS.get(name, (name,))[0])  # none: greedy and sampled
            draws = method is not None and "sampling" in method.reads
            shared = "sampled" if draws else VARIANTS[name][0] if name in VARIANTS else None
            took = [each[name] + (each[shared] if shared else 0) for each in (self.seconds, self.tokens)]
            if name == "greedy":  # which is no pool's
                took[1] = sum(len(answer.tokens) for answer in answers)
            found[name] = _row_of(answers, tasks, questions, embed) | {"seconds": took[0], "tokens": took[1]}
        return found


def _greedy(pool: SamplePool) -> list[DecodedAnswer]:
    found = pool.engine.generate(pool.prompts, max_new_tokens=MAX_NEW_TOKENS, sampling=GREEDY)
    return [DecodedAnswer.of(completion) for (completion,) in found]


def _first_samples(pool: SamplePool, k: int) -> list[DecodedAnswer]:
    return [DecodedAnswer.of(pool.sample(own[0])) for own in pool.samples(k)]


def _row_of(answers: Sequence[DecodedAnswer], tasks: Sequence[Task], questions: Questions, embed: Embed) -> dict[str, Any]:
    texts = [answer.text for answer in answers]
    described = [count_text(text) for text in texts if text is not None]
    meant: dict[str, Any] = {}
    if questions.has_meaning:
        asked = [(text or "", task.metadata["true"], task.metadata["false"]) for text, task in zip(texts, tasks, strict=True)]
        nearer = [value > 0 for value in truth_by(embed, asked)]
        meant["meant"] = _bits(texts, nearer, lambda _, is_so: is_so)
    if questions.has_evidence:
        meant["said"] = _bits(texts, tasks, says_a_name)
    return meant | {
        "right": _bits(texts, tasks, questions.is_right),
        "words": [each.words for each in described],
        "details": [each.details for each in described],
        "confidence": [answer.confidence for answer in answers],
        "agreement": [round(sum(answer.agreement) / len(answer.agreement), 4) for answer in answers if answer.agreement],
        "notes": sum(bool(answer.notes) for answer in answers),
    }


def _bits(texts: Sequence[str | None], beside: Sequence[Any], is_so: Callable[[str, Any], bool]) -> str:
    """Write 1 or 0 for each answer, by what stands beside it; - for none."""
    return "".join("-" if text is None else str(int(is_so(text, own))) for text, own in zip(texts, beside, strict=True))


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for every method, set and k: right answers, and the gain on greedy ones, with evidence on plain ones after it.

    The sets of a model without evidence, where there are several, also have rows together (`all`, and the second one's `practised`).
    """
    rows = []
    found = {Arm.of(cell["id"]): cell["methods"] for cell in cells}
    for k in sorted({arm.k for arm in found}):
        own = {arm: page for arm, page in found.items() if arm.k == k}
        groups = {name: [arm for arm in own if arm.set == name] for name in dict.fromkeys(arm.set for arm in own)}
        for name, is_second in (("all", False), (SECOND, True)):
            several = [arm for arm, page in own.items() if arm.is_of_second == is_second and ALONE not in page]
            if len({arm.set for arm in several}) > 1:
                groups[name] = several
        for name, arms in groups.items():
            pages = [own[arm] for arm in arms]
            rows += [_row(method, k, name, pages) for method in pages[0] if method != "sampled" or k == 1]
    return rows


def _row(method: str, k: int, set_name: str, pages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine, before = ([each[which] for each in pages] for which in (method, ALONE if ALONE in pages[0] else "greedy"))
    bits, its = "".join(each["right"] for each in mine), "".join(each["right"] for each in before)
    n = len(bits)
    row: dict[str, Any] = {
        "id": f"{method}_k{k}",
        "set": set_name,
        "n": n,
        "seeds": 1,
        **share("accuracy", bits.count("1"), n),
        **gain("gain", _is_one(its), _is_one(bits)),
        "not_given": bits.count("-") / n,
        "words": _mean([count for each in mine for count in each["words"]]),
        "greedy_words": _mean([count for own, its in zip(mine, before, strict=True) for count in _of_same(own, its)]),
        "details": _mean([count for each in mine for count in each["details"]]),
        "tokens": sum(each["tokens"] for each in mine) / n,
        "seconds_ratio": sum(each["seconds"] for each in mine) / sum(each["seconds"] for each in before),
    }
    for name in ("meant", "said"):
        if all(name in each for each in mine):
            one, other = (_is_one("".join(each[name] for each in own)) for own in (before, mine))
            row |= {name: sum(other) / n, **gain(f"{name}_gain", one, other)}
    pairs = [pair for each in mine for pair in zip(each["confidence"], each["right"], strict=True)]
    if sure := [(confidence, bit == "1") for confidence, bit in pairs if bit != "-" and confidence is not None]:
        confidences, rights = [confidence for confidence, _ in sure], [is_one for _, is_one in sure]
        row |= {"ece": expected_calibration_error(confidences, rights), "aurc": _mean(risk_coverage(confidences, rights))}
    return row


def _is_one(bits: str) -> list[bool]:
    return [bit == "1" for bit in bits]


def _of_same(own: Mapping[str, Any], greedy: Mapping[str, Any]) -> list[int]:
    """Return how many words greedy answers have where there is an answer."""
    return [count for count, bit in zip(greedy["words"], own["right"], strict=True) if bit != "-"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def judge(cells: Sequence[Cell], arms: Sequence[str]) -> Verdict:
    """Judge the claim by all sets of the first model at k = 8, paired."""
    if missing := [arm for arm in arms if arm not in {cell["id"] for cell in cells}]:
        return undecided(missing)
    first = {arm: cell["methods"] for cell in cells if not (arm := Arm.of(cell["id"])).is_of_second}
    pages = [page for arm, page in first.items() if arm.k == 8]
    ones = [first[arm._replace(k=1)] for arm in first if arm.k == 8]

    def bits(method: str) -> list[bool]:
        return _is_one("".join(page[method]["right"] for page in (pages if method in pages[0] else ones)))

    gains = {other: gain("gain", bits(other), bits("integrative")) for other in ("greedy", *CONTROLS)}
    said = ", ".join(f"{other} {in_points(each, 'gain')}" for other, each in gains.items())
    return decided(all(each["gain_low"] > 0 for each in gains.values()), f"integrative decoding, k = 8, against (points) {said}")


# ---------------------------------------------------------------------- tables and figure


def show(rows: Sequence[Row]) -> str:
    """Write one line a method, of each model over all sets; then what answers mean; then answers to questions with evidence."""
    name, told = first_shown(rows), [row for row in rows if "said" in row]
    sets = dict.fromkeys(row["set"] for row in rows if row["set"] != "all" and not row["set"].startswith(SECOND) and row not in told)
    parts = [_gains([row for row in rows if row["set"] == name], f"Questions of {', '.join(sets)}")] if sets else []
    if second := [row for row in rows if row["set"] == SECOND]:
        parts.append(_gains(second, "The same of a second model, which practised"))
    if meant := [row for row in rows if "meant" in row and row["set"] != "all"]:
        own = _at_most(meant)
        below = f"{own[0]['n']:,} questions of {own[0]['set']}, nearer to a true than to a false answer; gains paired with greedy answers."
        parts.append(table(own, MEANT, below))
    if told:
        asked = f"{told[0]['n']:,} questions of {told[0]['set']} with evidence, greedy answers without it"
        parts.append(table(told, WITH_EVIDENCE, f"{asked}; gains paired with plain decoding behind it."))
    return "\n".join(parts)


def first_shown(rows: Sequence[Row]) -> str:
    """Return the set that is shown first: all together, or the first of the first model; with evidence where there is no other."""
    names = dict.fromkeys(row["set"] for row in rows if "said" not in row and not row["set"].startswith(SECOND))
    return "all" if "all" in names else next(iter(names), rows[0]["set"])


def _gains(rows: Sequence[Row], asked: str) -> str:
    """Write one line a method: what it gains by its number of samples, and the rest of what was found where most questions were asked, with
    most samples. Below: how many questions were asked with how many samples.
    """
    found = {_way(row): row for row in rows}
    counts: dict[int, int] = {k: row["n"] for (_, k), row in found.items()}

    def gain_at(k: int) -> Callable[[Row], str]:
        return lambda row: interval("gain", points)(found.get((_name(row), k), {})) if _name(row) != "greedy" else ""

    columns = [
        Column("method", _words),
        *(Column(f"gain, k = {k}", gain_at(k)) for k in counts),
        Column("at k", lambda row: str(_way(row)[1])),
        *MEASURED,
    ]
    by_n: dict[int, list[str]] = {}
    for k, n in counts.items():
        by_n.setdefault(n, []).append(str(k))
    sizes = ", ".join(f"{n:,} at k = {', '.join(ks)}" for n, ks in by_n.items())
    return table(_at_most(rows), columns, f"{asked}: {sizes}; intervals (95 %) over questions, gains paired with greedy answers.")


def _way(row: Row) -> tuple[str, int]:
    """Return the method of a row, and how many samples it had."""
    way, _, k = row["id"].rpartition("_k")
    return way, int(k)


def _name(row: Row) -> str:
    return _way(row)[0]


def _words(row: Row) -> str:
    return _name(row).replace("_", " ")


def _at_most(rows: Sequence[Row]) -> list[Row]:
    """Return of every method the row of most questions, and of several that of most samples."""
    best = {_name(row): row for row in sorted(rows, key=lambda row: (row["n"], _way(row)[1]))}
    return [best[way] for way in dict.fromkeys(map(_name, rows))]


def _but(way: str, cell: Callable[[Row], str]) -> Callable[[Row], str]:
    """Leave a cell open for the method that the others are paired with."""
    return lambda row: "" if _name(row) == way else cell(row)


MEASURED = (
    Column("right", interval("accuracy", percent)),
    Column("no answer", value("not_given", percent)),
    Column("words", value("words", "{:.1f}".format)),
    Column("words of greedy", value("greedy_words", "{:.1f}".format)),
    Column("names and numbers", value("details", "{:.2f}".format)),
    Column("tokens drawn", value("tokens", "{:.0f}".format)),
    Column("time of greedy", value("seconds_ratio", "{:.1f}".format)),
    Column("ece", value("ece", "{:.3f}".format)),
    Column("aurc", value("aurc", "{:.3f}".format)),
)
MEANT = (
    Column("method", lambda row: f"{_words(row)}, k = {_way(row)[1]}"),
    Column("by ROUGE-L", value("accuracy", percent)),
    Column("gain", _but("greedy", interval("gain", points))),
    Column("by embeddings", value("meant", percent)),
    Column("gain", _but("greedy", interval("meant_gain", points))),
)
WITH_EVIDENCE = (
    Column("method", _words),
    Column("right", interval("accuracy", percent)),
    Column("gain", _but(ALONE, interval("gain", points))),
    Column("says it at all", value("said", percent)),
    Column("gain", _but(ALONE, interval("said_gain", points))),
    Column("words", value("words", "{:.1f}".format)),
)


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: what every method gains on greedy decoding by its number of samples, over all sets (or the only one)."""
    name = first_shown(rows)
    own = [(*row["id"].rsplit("_k", 1), row) for row in rows if row["set"] == name and not row["id"].startswith("greedy_")]
    ways, sizes = list(dict.fromkeys(way for way, _, _ in own)), {k: row["n"] for _, k, row in own}
    figure = Figure(figsize=(7.4, 0.8 + 0.4 * len(ways)), layout="constrained")
    axes = figure.subplots()
    for step, (k, n) in enumerate(sizes.items()):
        mine = [(ways.index(way) + 0.15 * (step - (len(sizes) - 1) / 2), row) for way, its, row in own if its == k]
        gains = [100 * row["gain"] for _, row in mine]
        ends = [[100 * (row["gain"] - row["gain_low"]) for _, row in mine], [100 * (row["gain_high"] - row["gain"]) for _, row in mine]]
        style: dict[str, Any] = {"fmt": "o", "color": COLOURS[step % len(COLOURS)], "capsize": 2, "markersize": 4}
        axes.errorbar(gains, [place for place, _ in mine], xerr=ends, label=f"k = {k} (n = {n:,})", **style)
    axes.axvline(0, color="#c2571a", linewidth=1)
    axes.legend(frameon=False, fontsize=7, title="samples", title_fontsize=7)
    axes.set_xlabel("difference in accuracy from greedy decoding, percentage points, with its 95 % interval", fontsize=8)
    names = [f"{way} (control)" if way in METHODS and METHODS[way].is_control else way for way in ways]
    list_rows(axes, names, f"gain over greedy answers, {name}", size=7)
    return save(figure, path)


def find(chosen: Options) -> Found:
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms], Answering(chosen.is_tiny), chosen)
    return cells, reduce(cells), undecided() if chosen.is_tiny else judge(cells, arms)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="openqa_false_answers, webquestions, truthfulqa and babi_en",
    rule="with eight samples integrative decoding is ahead of greedy decoding and of each control, by the whole 95 % interval over "
    "questions, paired",
    about="this model and answers of 24 tokens",
    remarks=["Some cells of eight samples are float32 on another processor, compared with those of one sample in bfloat16."],
)

if __name__ == "__main__":
    STUDY.main()
