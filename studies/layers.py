"""Are true answers likelier than false ones where an earlier layer is taken off the last?

    python -m studies.layers --data DIR [--hours H] [--only ID ...] [--tiny]

SmolLM2-135M reads the true and the false answers of TruthfulQA (410 questions, the answer behind "Q: ...\\nA:") and of FACTOR (120
beginnings of a text with one true and three false ends), plainly and under contrasts with a middle layer, with the layer that is furthest
among those of the lower or of the upper half, and with a random one of these, which is the control. A cell is a way and a set. MC1, MC2 and
MC3 are those of TruthfulQA (`etude.evaluation.truthful`), by the sum of log-probs over an answer's tokens, which are normalised anew after
the contrast; FACTOR's accuracy is MC1, by log-probs a byte. Facts are sentences of two models about 183 people, each found supported or not
by a person (FActScore, Min et al. 2023, arXiv 2305.14251), behind "Question: Tell me a bio of ...\\nAnswer:", the first four of each kind:
of a biography that has both kinds the share of pairs in which the supported one is likelier a byte (0.5 by chance), and of a person the
mean of both biographies.

Claim: over TruthfulQA and FACTOR some contrast chooses a true answer (MC1) more often than the plain model, and more often than the
contrast with a random layer of the same half (paired; 95 % for the three contrasts together, so 98.3 % for each).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from etude.decoding.layer_contrast import LayerContrast, contrasted_logprobs
from etude.device.machine import Machine, resolve_device
from etude.evaluation.retention import leading_tokens, token_ids
from etude.evaluation.truthful import choice_scores, ranked
from etude.models.load import load_model
from etude.tasks.files import file_rows
from experiments.cells import Cell, Options, Table, compute, made_here
from experiments.figures import accuracies, save
from experiments.measures import Verdict, decided, gain, in_points, lacking, mean, mean_difference, share, undecided
from experiments.study import Found, Study
from experiments.tables import Column, Row, interval, name_of, percent, points, table, value

CLAIM = "some contrast of layers chooses a true answer more often than the plain model, and than a random layer of the same half"
SEEDS = (91,)
MODEL = "smollm2-135m"
WAYS = {
    "plain": LayerContrast("middle", strength=0.0),
    "static": LayerContrast("middle", plausible=0.0),
    "dynamic_low": LayerContrast("low", plausible=0.0),
    "dynamic_high": LayerContrast("high", plausible=0.0),
    "random_low": LayerContrast("low", plausible=0.0, choice="random"),
    "random_high": LayerContrast("high", plausible=0.0, choice="random"),
}
"""No token is ruled out: a sum over an answer's tokens would rank answers by how many of them are."""
FACTS = 4
"""Of each kind and biography at most."""
CONTROL = {"dynamic_low": "random_low", "dynamic_high": "random_high", "static": "random_high"}
CONFIDENCE = 1 - 0.05 / len(CONTROL)
"""Of each interval, so that all contrasts together have 95 %."""


@dataclass(frozen=True)
class Compared:
    """A question as text, and what may follow it."""

    prompt: str
    true: tuple[str, ...]
    """The best one first."""
    false: tuple[str, ...]
    is_a_byte: bool = False
    about: str = ""
    """Whom, where several questions are about the same."""


def truthfulqa(data: Path) -> list[Compared]:
    """Load TruthfulQA: the best true answer first, then the others."""
    found = []
    for _, row in file_rows(data / "truthfulqa" / "mc_task.jsonl"):
        best = [text for text, value in row["mc1_targets"].items() if value == 1]
        every = {value: [text for text, own in row["mc2_targets"].items() if own == value] for value in (0, 1)}
        true = tuple(dict.fromkeys([*best, *every[1]]))
        false = tuple(dict.fromkeys([*(text for text, value in row["mc1_targets"].items() if value == 0), *every[0]]))
        found.append(Compared(f"Q: {row['question']}\nA:", true, false))
    return found


def factor(data: Path) -> list[Compared]:
    rows = [row for _, row in file_rows(data / "factor" / "expert_factor.jsonl")]
    return [
        Compared(row["turncated_prefixes"].rstrip(), (row["completion"],), tuple(row[f"contradiction_{place}"] for place in range(3)), True)
        for row in rows
    ]


def facts(data: Path) -> list[Compared]:
    """Load the first supported sentences of a biography, and the first unsupported ones, where it has both."""
    found = []
    for name in ("ChatGPT", "InstructGPT"):
        for _, row in file_rows(data / "factscore_bios" / f"{name}.jsonl"):
            said = [fact for sentence in row["annotations"] or [] for fact in sentence.get("human-atomic-facts") or []]
            kinds = [tuple(dict.fromkeys(fact["text"] for fact in said if fact["label"] == label)) for label in ("S", "NS")]
            if all(kinds):
                found.append(Compared(f"{row['input']}\nAnswer:", kinds[0][:FACTS], kinds[1][:FACTS], True, row["topic"]))
    return found


def tiny(data: Path | None) -> list[Compared]:
    return [Compared(f"Q: {letter}?\nA:", (letter, letter * 2), ("x", "y z")) for letter in "abcd"]


SETS = {"truthfulqa": truthfulqa, "factor": factor, "facts": facts}
CHOSEN = ("truthfulqa", "factor")
"""Sets in which one answer is the best, which the claim is about."""
ARMS = [f"{way}-{name}" for name in SETS for way in WAYS]
TINY_ARMS = [f"{way}-letters" for way in ("plain", "static", "random_high")]


class Reading(Table):
    """A cell for every way and set."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else MODEL

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        way, _, name = arm.partition("-")
        return {"model": self.model, "set": name, "contrast": asdict(WAYS[way])}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure MC1, MC2 and MC3 of every question."""
        way, _, name = arm.partition("-")
        place = resolve_device(Machine(dtype="float32"))
        model, tokenizer = load_model(self.model, device=place.device)
        if self.is_tiny:
            questions = tiny(chosen.data)
        else:
            assert chosen.data is not None
            questions = SETS[name](chosen.data)
        likely = [_likelihoods(model, tokenizer, WAYS[way], each) for each in questions]
        cell: Cell = dict(made_here(place.precision))
        if name == "facts":
            people = {question.about: list[float]() for question in questions}  # two models write of each
            for question, each in zip(questions, likely, strict=True):
                people[question.about].append(ranked(*each))
            return cell | {"ranked": [round(fmean(own), 6) for own in people.values()]}
        return cell | {"mc": [[round(value, 6) for value in choice_scores(*each)] for each in likely]}


def _likelihoods(model: Any, tokenizer: Any, how: LayerContrast, question: Compared) -> tuple[list[float], list[float]]:
    """Return the log-probs of its true answers and of its false ones."""
    before = (*leading_tokens(tokenizer), *token_ids(tokenizer, question.prompt))
    answers = [*question.true, *question.false]
    whole = [(*leading_tokens(tokenizer), *token_ids(tokenizer, f"{question.prompt} {answer}")) for answer in answers]
    found = contrasted_logprobs(model, how, before, [tokens[len(before) :] for tokens in whole])
    sums = [sum(own) / (len(answer.encode()) if question.is_a_byte else 1) for own, answer in zip(found, answers, strict=True)]
    return sums[: len(question.true)], sums[len(question.true) :]


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce the cells to a row for every way and set, and for those of `CHOSEN` together where both are there; the latter have no MC2 and
    MC3, which are not of one kind in both. Gains are paired.
    """
    found = {tuple(cell["id"].split("-")): cell["mc"] for cell in cells if "mc" in cell}
    rows = []
    for way in WAYS:
        sets = [name for own, name in found if own == way]
        for name in [*sets, *(["all"] if len(sets) > 1 else [])]:
            parts = sets if name == "all" else [name]
            mine = [each for part in parts for each in found[way, part]]
            right = _is_best(found, way, parts)
            means = {} if name == "all" else {f"mc{number + 1}": sum(each[number] for each in mine) / len(mine) for number in (1, 2)}
            row = {"id": way, "set": name, "n": len(mine), "seeds": 1, **share("accuracy", sum(right), len(mine)), **means}
            for said, other in (("gain", "plain"), ("control_behind", CONTROL.get(way))):
                if all((other, part) in found for part in parts):
                    row |= gain(said, _is_best(found, str(other), parts), right, CONFIDENCE)
            rows.append(row)
    return rows + _rows_of_facts({cell["id"].split("-")[0]: cell["ranked"] for cell in cells if "ranked" in cell})


def _is_best(found: Mapping[Any, Any], way: str, parts: Sequence[str]) -> list[bool]:
    """Return of each question whether the best answer is the likeliest: MC1 is 1."""
    return [each[0] == 1 for part in parts for each in found[way, part]]


def _rows_of_facts(found: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    rows = []
    for way in (way for way in WAYS if way in found):
        row = {"id": way, "set": "facts", "n": len(found[way]), "seeds": 1, **mean("accuracy", found[way])}
        for name, other in (("gain", "plain"), ("control_behind", CONTROL.get(way))):
            if other is not None and other in found:
                row |= mean_difference(name, found[other], found[way], CONFIDENCE)
        rows.append(row)
    return rows


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows of `CHOSEN` together."""
    every = {row["id"]: row for row in rows if row["set"] == "all"}
    if missing := lacking(every, WAYS, 1):
        return undecided(missing)
    better = [way for way in CONTROL if every[way]["gain_low"] > 0 and every[way]["control_behind_low"] > 0]
    said = ", ".join(f"{way} {in_points(every[way], 'gain')}" for way in WAYS if way != "plain")
    return decided(bool(better), f"points of MC1 on the plain model: {said}")


TABLE = (
    Column("way", name_of),
    Column("set", itemgetter("set")),
    Column("MC1; of facts pairs in order", interval("accuracy", percent)),
    Column("gain on the plain model", lambda row: "" if row["id"] == "plain" else interval("gain", points)(row)),
    Column("MC2", value("mc2", "{:.3f}".format)),
    Column("MC3", value("mc3", "{:.3f}".format)),
)


def show(rows: Sequence[Row]) -> str:
    """Write one line a way and set."""
    sizes = [f"{row['n']:,} of {row['set']}" for row in rows if row["id"] == rows[0]["id"]]
    return table(rows, TABLE, f"{', '.join(sizes)}; intervals over questions, 95 %, of gains 98.3 %.")


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: MC1, or the share of pairs in order, of every way with its interval, a panel a set."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(3.4 * len(sets), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        own = [row for row in rows if row["set"] == name]
        colours = ["#9aa3b5" if row["id"] in ("plain", *CONTROL.values()) else "#1f2a44" for row in own]
        accuracies(axes, own, colours, f"{name} (n = {own[0]['n']:,})")
        axes.set_xlabel("pairs of statements in order" if name == "facts" else "MC1: the right choice is likeliest", fontsize=8)
    figure.supxlabel("share, with its 95 % interval; grey: the plain model, and layers chosen at random (controls)", fontsize=8)
    return save(figure, path)


def find(chosen: Options) -> Found:
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms], Reading(chosen.is_tiny), chosen)
    rows = reduce(cells)
    return cells, rows, judge(rows)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="truthfulqa, factor and factscore_bios",
    rule="some contrast is ahead of the plain model and of a random layer of the same half, by whole intervals over questions (95 % for "
    "three contrasts)",
    about="this model",
)

if __name__ == "__main__":
    STUDY.main()
