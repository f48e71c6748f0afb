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
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from etude.decoding.layer_contrast import LayerContrast, contrasted_logprobs
from etude.device.machine import Machine, decide
from etude.errors import UserError
from etude.evaluation.retention import leading_tokens, token_ids
from etude.evaluation.statistics import mean_interval, paired_test, wilson_interval
from etude.evaluation.truthful import choice_scores, ranked
from etude.models.load import load_model
from etude.tasks.files import file_rows
from etude.training.run_folder import environment
from studies.cells import Cell, Options, compute, options, write_result
from studies.figure import accuracies, save

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
    """The best true answer first, then the others."""
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
    """The first supported sentences of a biography, and the first unsupported ones, where it has both."""
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


class Reading:
    """A cell for every way and set."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else MODEL

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        way, _, name = arm.partition("-")
        return {"model": self.model, "set": name, "contrast": asdict(WAYS[way])}

    def defaults(self) -> dict[str, Any]:
        return {}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """MC1, MC2 and MC3 of every question."""
        way, _, name = arm.partition("-")
        place = decide(Machine(precision="float32"))
        model, tokenizer = load_model(self.model, device=place.device)
        if self.is_tiny:
            questions = tiny(chosen.data)
        else:
            assert chosen.data is not None
            questions = SETS[name](chosen.data)
        likely = [_likelihoods(model, tokenizer, WAYS[way], each) for each in questions]
        where = environment()
        cell = {"commit": where["commit"], "hardware": f"{where['processor']}, {where['threads']} threads, {place.precision}"}
        if name == "facts":
            people = {question.about: list[float]() for question in questions}  # two models write of each
            for question, each in zip(questions, likely, strict=True):
                people[question.about].append(ranked(*each))
            return cell | {"ranked": [round(fmean(own), 6) for own in people.values()]}
        return cell | {"mc": [[round(value, 6) for value in choice_scores(*each)] for each in likely]}


def _likelihoods(model: Any, tokenizer: Any, how: LayerContrast, question: Compared) -> tuple[list[float], list[float]]:
    """Of its true answers and of its false ones."""
    before = (*leading_tokens(tokenizer), *token_ids(tokenizer, question.prompt))
    answers = [*question.true, *question.false]
    whole = [(*leading_tokens(tokenizer), *token_ids(tokenizer, f"{question.prompt} {answer}")) for answer in answers]
    found = contrasted_logprobs(model, how, before, [tokens[len(before) :] for tokens in whole])
    sums = [sum(own) / (len(answer.encode()) if question.is_a_byte else 1) for own, answer in zip(found, answers, strict=True)]
    return sums[: len(question.true)], sums[len(question.true) :]


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for every way and set, and for those of `CHOSEN` together where both are there, of which MC2 and MC3 are not of one kind; what
    it gains on the plain model, paired.
    """
    found = {tuple(cell["id"].split("-")): cell["mc"] for cell in cells if "mc" in cell}
    rows = []
    for way in WAYS:
        sets = [name for own, name in found if own == way]
        for name in [*sets, *(["all"] if len(sets) > 1 else [])]:
            parts = sets if name == "all" else [name]
            mine = [each for part in parts for each in found[way, part]]
            n, right = len(mine), sum(each[0] == 1 for each in mine)
            low, high = wilson_interval(right, n)
            means = {} if name == "all" else {f"mc{number + 1}": sum(each[number] for each in mine) / n for number in (1, 2)}
            row = {"id": way, "set": name, "n": n, "seeds": 1, "accuracy": right / n, "accuracy_low": low, "accuracy_high": high, **means}
            if all(("plain", part) in found for part in parts):
                row |= _behind(found, "plain", way, parts, "gain")
            if all((CONTROL.get(way), part) in found for part in parts):
                row |= _behind(found, CONTROL[way], way, parts, "control_behind")
            rows.append(row)
    return rows + _rows_of_facts({cell["id"].split("-")[0]: cell["ranked"] for cell in cells if "ranked" in cell})


def _rows_of_facts(found: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    rows = []
    for way in (way for way in WAYS if way in found):
        own = found[way]
        low, high = mean_interval(own)
        row = {"id": way, "set": "facts", "n": len(own), "seeds": 1, "accuracy": fmean(own), "accuracy_low": low, "accuracy_high": high}
        for name, other in (("gain", "plain"), ("control_behind", CONTROL.get(way))):
            if other is not None and other in found:
                differences = [mine - its for mine, its in zip(own, found[other], strict=True)]
                ends = mean_interval(differences, confidence=1 - 0.05 / len(CONTROL))
                row |= {name: fmean(differences), f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    return rows


def _behind(found: Mapping[Any, Any], one: str, other: str, parts: Sequence[str], name: str) -> dict[str, float]:
    its, mine = ([each[0] == 1 for part in parts for each in found[way, part]] for way in (one, other))
    test = paired_test(its, mine, confidence=1 - 0.05 / len(CONTROL))
    return {name: test.difference, f"{name}_low": test.difference_low, f"{name}_high": test.difference_high}


def judge(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The verdict on the claim, from the rows of `CHOSEN` together."""
    every = {row["id"]: row for row in rows if row["set"] == "all"}
    missing = [way for way in WAYS if way not in every]
    if missing:
        return "undecided", f"not all cells are there: {', '.join(missing)}"
    better = [way for way in CONTROL if every[way]["gain_low"] > 0 and every[way]["control_behind_low"] > 0]
    said = ", ".join(
        f"{way} {100 * every[way]['gain']:+.1f} [{100 * every[way]['gain_low']:+.1f}, {100 * every[way]['gain_high']:+.1f}]"
        for way in WAYS
        if way != "plain"
    )
    return ("holds" if better else "does not hold"), f"points of MC1 on the plain model: {said}"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
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


def main(chosen: Options) -> None:
    if chosen.data is None and not chosen.is_tiny:
        raise SystemExit(str(UserError("--data DIR is needed: the folder that holds truthfulqa, factor and factscore_bios")))
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms], Reading(chosen.is_tiny), chosen)
    rows = reduce(cells)
    write_result(chosen, CLAIM, cells, rows, *judge(rows), picture=draw)


if __name__ == "__main__":
    main(options("layers", ARMS, SEEDS))
