"""How much of a long text can be dropped, and by what, before its answers are lost? And what does recall keep of them?

    python -m studies.long_context --data DIR [--hours H] [--only ID ...] [--tiny]

SmolLM2-135M in bfloat16, tasks whose answer lies somewhere in a book (`etude.evaluation.long`), of 2,048
and 4,096 tokens. `screen` finds the tasks that the full context solves at 30 % or more (20 items of each kind, none of those that are
measured); only those go on. A cell is a fifth of a kind and a length: of 50 items, each read once and cut by every policy at a tenth, a
quarter and a half of its tokens, with the question unseen, so that it comes behind the cut and is kept, and with the question seen, at the
end of what is cut. `recall` cells are the fifths of 150 items more at a tenth, unseen, of recall, two policies that drop, and the control;
`sketch` cells are the fifths of all 200, unseen, of recall by sketches: reading a tenth of the tokens; so many that no more than a tenth is
held, sketches and all; and a quarter, of which only what one layer reads is there at a time (`stream_per_layer`), so that still less
is held.

`held` is what lies where the model computes, in tokens of the full context: of what drops behind the cut, of recall, whose pages are in a
file, what a token reads of them (where it passes, in one layer), the open one and the digests of all. Chosen on other items: `small_pages`,
of 1,024 tokens, `sketch`, of 40 items of multi_key, and the quarter, of 40 others.

`kvpress` cells are the first 50 items again, at a tenth and a quarter, question unseen, under four presses of kvpress 0.5.5 in an
environment of its own, where `make bench-peers` made it; kvpress keeps no first tokens but where its press does. `recall` and `kvpress`
cells are of 2,048 tokens.

Scores are those of the task. The distance to the full context is KL(full || policy) of the next token, the mean over the tokens of the full
context's own answer, in nats. Under recall each token of a question reads its own pages, as if it were generated.

Claim: with no more than a tenth of the tokens held, question unseen, one kind of recall loses less than 2 points on every one of these
tasks, of 200 paired items (lower end of the 95 % interval above -2), and no policy that drops does (50 items or more). This is the rule
that was written before the cells. On 2026-11-29, when the rows of `sketch` were known and before those of `passing`, it was relaxed: less
than 2 points lost with 0 in the interval was enough, since with one answer in forty turning either way 200 items cannot show the first rule
even where nothing is lost. An interval that holds 0 shows no equivalence; since 2026-12-02 the first rule decides again, and for which the
relaxed one holds is said beside it.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from etude.device.machine import Machine, resolve_device
from etude.evaluation.long.multi_policy import Reading, Rows
from etude.evaluation.long.tokenized import TokenizedTask, generators_by_kind, make_haystack, make_tasks
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.full_cache import FULL
from etude.kv_cache.policies import EVICTION, POLICIES, RETRIEVAL
from etude.kv_cache.retrieval import PagedRetrieval
from etude.models.load import cast_weights, end_tokens, load_model
from experiments.cells import Cell, Options, Table, compute, made_here
from experiments.figures import list_rows, save
from experiments.measures import Verdict, decided, in_points, mean, mean_difference, undecided
from experiments.peer import Peer, Running
from experiments.study import Changed, Found, Study
from experiments.tables import Column, Row, interval, name_of, percent, points, table, value

CLAIM = (
    "recall that holds a tenth of the tokens loses less than 2 points of the full context's answers to a question that comes later, and "
    "nothing that drops does"
)
SEEDS = (120,)
MODEL = "smollm2-135m"
PRECISION: Final = "bfloat16"
BOOKS = ("treasure_island", "the_wind_in_the_willows", "alice_s_adventures_in_wonderland")
FACTS = "babi_en/qa1_single-supporting-fact_test.txt"
KINDS = ("single", "multi_key", "multi_value", "variables", "common", "frequent", "instructions", "facts")
RATIOS = (0.1, 0.25, 0.5)
SCREENED, MEASURED, MORE = 20, 50, 150
FIFTHS = 5
ITEMS = ("measured", "screened", "more")
"""Sets of them, which have none in common."""
SOLVED, LOSS, HELD = 0.3, 0.02, 0.1
KVPRESS = Peer("kvpress_answers.py", ".venv-kvpress")
PRESSED = ("streaming", "snapkv", "key_norm", "expected_attention")
PRESSED_RATIOS = RATIOS[:2]
BY_PAGES = ("quest", "arkvale", "small_pages")
ASKED_MORE = ("small_pages", "quest", "arkvale", "snapkv", "streaming", "random")
SKETCHED_RATIOS, PASSING_RATIO = (0.1, 0.06), 0.25
"""At the second, with sketches and what tells of them, a tenth is held."""
RECALLED = (*RETRIEVAL, "passing")
KINDS_OF_ROWS = (tuple(EVICTION), *((name,) for name in RECALLED))
"""Policies whose rows are decoded as one batch: all that evict, and those that retrieve the same pages."""
NEW_TOKENS = {
    "single": 10,
    "multi_key": 10,
    "multi_value": 18,
    "variables": 24,
    "common": 32,
    "frequent": 24,
    "instructions": 32,
    "facts": 6,
}
"""By kind: what the answers take."""
PARTS = {2048: ("", "recall-", "sketch-", "kvpress-"), 4096: ("", "sketch-")}
"""By length: an item of the longer ones takes minutes."""
CELLS = {
    f"{kind}-{tokens}": [f"{part}{kind}-{tokens}-{fifth}" for fifth in range(FIFTHS) for part in PARTS[tokens]]
    for tokens in PARTS
    for kind in KINDS
}
SCREENS = tuple(f"screen-{name}" for name in CELLS)
ARMS = (*SCREENS, *(arm for own in CELLS.values() for arm in own))
TINY_ARMS = ("screen-single-420", "single-420-0", "single-420-1", "recall-single-420-0", "sketch-single-420-0")


@dataclass(frozen=True)
class Arm:
    """A cell: what is make_tasks, how often, and under what."""

    part: str
    kind: str
    tokens: int
    fifth: int = 0

    @staticmethod
    def of(name: str) -> "Arm":
        pieces = name.split("-")
        part = pieces.pop(0) if pieces[0] in ("screen", "recall", "sketch", "kvpress") else ""
        kind, tokens, *fifth = pieces
        return Arm(part, kind, *map(int, (tokens, *fifth)))

    @property
    def set(self) -> str:
        """Return the kind with the length, which rows are of."""
        return f"{self.kind}-{self.tokens}"

    @property
    def policies(self) -> dict[str, EvictionPolicy | PagedRetrieval]:
        """Return the policies by name and share."""
        if self.part in ("screen", "kvpress"):
            return {}
        found: dict[str, EvictionPolicy | PagedRetrieval] = {}
        is_small = self.tokens < 1000
        if self.part == "sketch":
            own = replace(RETRIEVAL["sketch"], offload="file", full_prompts=is_small)
            found = {f"sketch {ratio}": replace(own, keep_ratio=ratio) for ratio in SKETCHED_RATIOS}
            found[f"passing {PASSING_RATIO}"] = replace(own, keep_ratio=PASSING_RATIO, stream_per_layer=True)
            return found
        for name in (*EVICTION, *BY_PAGES) if self.part == "" else ASKED_MORE:
            policy = POLICIES[name]
            if name in RETRIEVAL:
                own = RETRIEVAL[name]
                policy = replace(own, offload="file", full_prompts=is_small, page_tokens=4 if is_small else own.page_tokens)
            ratios = RATIOS[:1] if self.part == "recall" or is_small else RATIOS
            found |= {f"{name} {ratio}": replace(policy, keep_ratio=ratio) for ratio in ratios}
        return dict(sorted(found.items(), key=lambda each: each[0].split(" ")[1]))  # rows that keep as much lie together


def read_books(data: Path | None) -> list[str]:
    """Load the texts that things are hidden in; none without data."""
    return [] if data is None else [(data / "gutenberg_books" / f"{name}.md").read_text(encoding="utf8") for name in BOOKS]


class Long(Table):
    """A cell for every kind and length."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else MODEL

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        own = Arm.of(arm)
        found = {"model": self.model, "precision": PRECISION, **asdict(own), "n": self._n(own), "new_tokens": self._new_tokens(own)}
        if own.part == "kvpress":
            return found | {"methods": list(PRESSED), "ratios": list(PRESSED_RATIOS)}
        policies = {name: asdict(policy) for name, policy in own.policies.items()}
        for each in policies.values():
            each["stream_per_layer"] = each.get("stream_per_layer") or None  # some cells are older than it
        return found | {"policies": policies}

    def _new_tokens(self, own: Arm) -> int:
        return 4 if self.is_tiny else NEW_TOKENS[own.kind]

    def _n(self, own: Arm) -> int:
        """Return the number of items of a cell."""
        return sum(n for _, n in self._items(own))

    def _items(self, own: Arm) -> list[tuple[str, int]]:
        """Return of which sets the items of a cell are, and how many of each."""
        measured, more = ("measured", 2 if self.is_tiny else MEASURED // FIFTHS), ("more", 2 if self.is_tiny else MORE // FIFTHS)
        others = {"screen": [("screened", 2 if self.is_tiny else SCREENED)], "recall": [more], "sketch": [measured, more]}
        return others.get(own.part, [measured])

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure every item under the full context and under every policy."""
        own, place = Arm.of(arm), resolve_device(Machine(dtype=PRECISION))
        model, tokenizer = load_model(self.model, device=place.device)
        model = cast_weights(model, place.dtype)
        if self.is_tiny:
            model.config.max_position_embeddings = 1024
        made = generators_by_kind({"facts": chosen.data / FACTS if chosen.data else None})
        haystack, tasks = make_haystack(read_books(chosen.data), tokenizer), list[TokenizedTask]()
        for items, n in self._items(own):
            named: dict[str, Any] = {"tokens": own.tokens, "n": n, "start": own.fifth * n, "seed": seed + ITEMS.index(items) + 1}
            tasks += make_tasks(tokenizer, own.kind, made[own.kind], haystack, **named)
        if own.part == "kvpress":
            return by_kvpress(model, tokenizer, tasks, self._new_tokens(own), place.precision)
        modes = ("unseen", "seen") if own.part == "" else ("unseen",)
        found = [measured(model, tokenizer, each, own.policies, modes, self._new_tokens(own)) for each in tasks]
        names = list(found[0]["policies"])
        by_policy = {name: {part: [each["policies"][name][part] for each in found] for part in ("score", "kl", "held")} for name in names}
        return made_here(place.precision) | {
            "full": [each["full"] for each in found],
            "depths": [each.task.depth for each in tasks],
            "policies": by_policy,
        }


def by_kvpress(
    model: Any, tokenizer: Any, tasks: Sequence[TokenizedTask], n: int, precision: str, running: type[Running] = Running
) -> Cell:
    """Ask kvpress: scores, and the share of the text that is held, by `kvpress_NAME RATIO unseen`."""
    ends, found = sorted(end_tokens(model, tokenizer)), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with running(KVPRESS, {"model": folder, "threads": torch.get_num_threads(), "precision": precision}) as peer:
            for name, ratio in product(PRESSED, PRESSED_RATIOS):
                asked_of = [{"method": name, "ratio": ratio, "text": each.text, "question": each.question, "n": n} for each in tasks]
                answers = [peer.ask(request | {"ends": ends}) for request in asked_of]
                texts = [tokenizer.decode(answer["tokens"], skip_special_tokens=True) for answer in answers]
                scores = [each.task.score(text) for each, text in zip(tasks, texts, strict=True)]
                held = [round(answer["held"] / len(each.text), 4) for each, answer in zip(tasks, answers, strict=True)]
                found[f"kvpress_{name} {ratio} unseen"] = {"score": scores, "held": held}
            versions = peer.about["versions"]
    return made_here(precision) | {"versions": versions, "policies": found}


@torch.inference_mode()
def measured(
    model: Any, tokenizer: Any, each: TokenizedTask, policies: Mapping[str, EvictionPolicy | PagedRetrieval], modes: Sequence[str], n: int
) -> dict[str, Any]:
    """Measure one item: the full context's score, and of every policy and way to ask `{"score", "kl", "held"}`, by `NAME RATIO MODE`."""
    policies = {name: policy.for_tokenizer(tokenizer) for name, policy in policies.items()}
    by_kind = [{name: policy for name, policy in policies.items() if name.split(" ")[0] in kinds} for kinds in KINDS_OF_ROWS]
    ends = end_tokens(model, tokenizer)
    unseen = Reading(model, list(policies.values()))
    unseen.read(each.text)
    seen = unseen.fork()
    seen.read(each.question)
    (answer,) = (everything := seen.rows([FULL])).greedy(everything.first(seen), n, ends)
    everything = seen.rows([FULL])  # anew, without the answer
    full_TV = (
        torch.cat([everything.first(seen)[:, None], everything.forced(answer[:-1])], 1)[0] if len(answer) > 1 else everything.first(seen)
    )

    def score(tokens: Sequence[int]) -> float:
        return each.task.score(tokenizer.decode(list(tokens), skip_special_tokens=True))

    found: dict[str, Any] = {}
    for mode in modes:
        reading = seen if mode == "seen" else unseen
        for names, rows in [(list(own), reading.rows(list(own.values()))) for own in by_kind if own]:
            held = rows.held_tokens
            own_PTV, kl_P = _distance(rows, reading, each, answer, full_TV, mode)
            said = _said(rows, own_PTV, answer, n, ends)
            for name, tokens, kl, own in zip(names, said, kl_P.tolist(), held, strict=True):
                found[f"{name} {mode}"] = {"score": score(tokens), "kl": round(kl, 5), "held": round(own / len(reading.tokens), 4)}
    return {"full": score(answer), "policies": found}


def _distance(
    rows: Rows, reading: Reading, each: TokenizedTask, answer: Sequence[int], full_TV: torch.Tensor, mode: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the full context's answer after every row; return the logits [P, A + 1, V] of its tokens and of the next one, and the divergence
    [P] over its tokens, of the first one alone where there is none. The answer is taken back.
    """
    before = [] if mode == "seen" else list(each.question)
    behind = [*before, *answer]
    own_PTV = rows.forced(behind, keep=len(answer) + bool(before)) if behind else None
    if mode == "seen":
        first_P1V = rows.first(reading)[:, None]
        own_PTV = first_P1V if own_PTV is None else torch.cat([first_P1V, own_PTV], 1)
    assert own_PTV is not None
    if answer:
        rows.take_back(len(answer))
    full_log, own_log = full_TV.log_softmax(-1), own_PTV[:, : len(full_TV)].log_softmax(-1)
    return own_PTV, (full_log.exp() * (full_log - own_log)).sum(-1).mean(-1)


def _said(rows: Rows, own_PTV: torch.Tensor, answer: Sequence[int], n: int, ends: Collection[int]) -> list[list[int]]:
    """Return every row's answer: the full context's where it would say each of its tokens, and end as it does; others are decoded."""
    likeliest_PT = own_PTV.argmax(-1).tolist()
    same = [own[: len(answer)] == list(answer) and (len(answer) == n or own[len(answer)] in ends) for own in likeliest_PT]
    others = [row for row, is_same in enumerate(same) if not is_same]
    found = [list(answer) for _ in same]
    if others:
        first_PV = own_PTV[others, 0]
        if len(others) < len(same):
            rows.keep(others)
        for row, tokens in zip(others, rows.greedy(first_PV, n, ends), strict=True):
            found[row] = tokens
    return found


# ---------------------------------------------------------------------- from cells to rows


def solved(cells: Sequence[Cell]) -> list[str]:
    """Return the kinds with a length that the full context solves, by what the screen found."""
    screens = {arm.set: fmean(cell["full"]) for cell in cells if (arm := Arm.of(cell["id"])).part == "screen"}
    return [name for name, score in screens.items() if score >= SOLVED]


def _by_set(cells: Sequence[Cell], *parts: str) -> dict[str, list[Cell]]:
    """Return the fifths of these parts by set."""
    found: dict[str, list[Cell]] = {}
    for arm, cell in sorted(((Arm.of(cell["id"]), cell) for cell in cells), key=lambda each: astuple(each[0])):
        if arm.part in parts:
            found.setdefault(arm.set, []).append(cell)
    return found


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for every set, policy, share and way to ask, over the items of all kinds of cell; the full context first."""
    rows = []
    for name, own in _by_set(cells, "", "recall", "sketch").items():
        by_part = [
            [value for cell in own if (Arm.of(cell["id"]).part == "sketch") == of_sketches for value in cell["full"]]
            for of_sketches in (False, True)
        ]  # of the same items, as far as both have them
        rows.append(_row("full", name, {"share": 1.0}, max(by_part, key=len)))
        for policy in dict.fromkeys(policy for cell in own for policy in cell["policies"]):
            there = [cell for cell in own if policy in cell["policies"]]
            full, scores, kl, held = ([] for _ in range(4))  # type: ignore[var-annotated]
            for cell in there:
                full += cell["full"]
                scores += cell["policies"][policy]["score"]
                kl += cell["policies"][policy]["kl"]
                held += cell["policies"][policy]["held"]
            how, share, mode = policy.split(" ")
            row = _row(how, name, {"share": float(share), "question": mode}, scores)
            rows.append(row | mean_difference("loss", full, scores) | {"kl": fmean(kl), "held": fmean(held)})
        rows += _pressed(name, cells)
    return rows


def _pressed(name: str, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce kvpress' cells of the items that policies answered too; `ours_ahead`: how far ours of the same name is ahead, paired."""
    by_fifth = [{Arm.of(cell["id"]).fifth: cell for cell in _by_set(cells, part).get(name, ())} for part in ("kvpress", "")]
    both = [tuple(own[fifth] for own in by_fifth) for fifth in by_fifth[0].keys() & by_fifth[1].keys()]
    if not both:
        return []
    rows = []
    full = [score for _, ours in both for score in ours["full"]]
    for policy in both[0][0]["policies"]:
        how, share, mode = policy.split(" ")
        its = [score for pressed, _ in both for score in pressed["policies"][policy]["score"]]
        mine = [score for _, ours in both for score in ours["policies"][policy.removeprefix("kvpress_")]["score"]]
        held = [part for pressed, _ in both for part in pressed["policies"][policy]["held"]]
        row = _row(how, name, {"share": float(share), "question": mode}, its) | {"held": fmean(held)}
        rows.append(row | mean_difference("loss", full, its) | mean_difference("ours_ahead", its, mine))
    return rows


def _row(how: str, name: str, more: Mapping[str, Any], scores: Sequence[float]) -> dict[str, Any]:
    return {"id": how, "set": name, **more, "n": len(scores), "seeds": 1, **mean("accuracy", scores)}


def judge(rows: Sequence[Row], sets: Sequence[str]) -> Verdict:
    """Judge the claim by the rows that read or hold no more than a tenth with the question unseen."""
    unseen = [row for row in rows if row.get("question") == "unseen" and "kl" in row]
    found = {(row["id"] if row["share"] == RATIOS[0] else f"{row['id']} {row['share']}", row["set"]): row for row in unseen}
    needed = {**dict.fromkeys(EVICTION, MEASURED), "sketch": MEASURED + MORE, f"passing {PASSING_RATIO}": MEASURED + MORE}
    missing = [name for name in sets if any(found.get((how, name), {"n": 0})["n"] < n for how, n in needed.items())]
    if missing or not sets:
        return undecided(missing or ["the screen"])
    by_how = {how: [found[how, name] for name in sets] for how, _ in found if all((how, name) in found for name in sets)}
    by_how = {how: own for how, own in by_how.items() if all(min(row["share"], row["held"]) <= HELD for row in own)}
    little = [how for how, own in by_how.items() if how in EVICTION or all(row["held"] <= HELD for row in own)]
    keeps = [how for how in little if all(row["loss_low"] > -LOSS for row in by_how[how])]
    relaxed = [how for how in little if all(row["loss"] > -LOSS and row["loss_high"] >= 0 for row in by_how[how])]
    recalls, drops = ([how for how in keeps if (how in EVICTION) == is_dropped] for is_dropped in (False, True))
    lowest = {how: in_points(min(by_how[how], key=lambda row: row["loss_low"]), "loss") for how in relaxed}
    worst = {how: (min(row["loss"] for row in own), max(row["held"] for row in own)) for how, own in by_how.items()}
    said = [f"{how} {100 * loss:+.1f} (holds {held:.0%})" for how, (loss, held) in sorted(worst.items(), key=lambda each: -each[1][0])]
    kept = f"loses less than 2 points on each task in a tenth: {', '.join(keeps) or 'none'}"
    near = "; ".join(f"{how}, whose lowest interval is {ends}" for how, ends in lowest.items())
    loss = f"largest loss on a task, in points: {', '.join(said)}"
    return decided(bool(recalls) and not drops, f"{kept}; by the relaxed rule: {near or 'none'}; {loss}")


def show(rows: Sequence[Row]) -> str:
    """Write one line a policy, share and way to ask, where no more than a tenth is read or held, or kvpress does it: the mean score over
    the sets, and of each what is lost, paired.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        lines.setdefault((row["id"], row["share"], row.get("question", "")), {})[row["set"]] = row
    little = [own for (how, *_), own in lines.items() if how.startswith(("full", "kvpress")) or _is_little(own)]
    summed = [
        {
            **{name: first[name] for name in ("id", "share", "question") if name in first},
            **{name: fmean(row[name] for row in own.values()) for name in ("accuracy", "kl", "held") if name in first},
            "n": sorted({row["n"] for row in own.values()}),
            "by_set": own,
        }
        for own in little
        for first in (next(iter(own.values())),)
    ]
    columns = [
        Column("policy", name_of),
        Column("of the tokens", lambda row: f"{100 * row['share']:g} %"),
        Column("question", value("question")),
        Column("held", value("held", percent)),
        Column("n", lambda row: f"{row['n'][0]} to {row['n'][-1]}" if row["n"][1:] else str(row["n"][0])),
        Column("score", value("accuracy", percent)),
        Column("KL, nats", value("kl", "{:.3f}".format)),
        *(Column(f"{name}, points", _lost(name)) for name in sets),
    ]
    below = "n of a task; intervals (95 %) over items, paired with the full context. Larger shares are in the study's `result.json`."
    return table(summed, columns, below)


def _is_little(own: Mapping[str, Row]) -> bool:
    return any(min(row["share"], row["held"]) <= 0.1 for row in own.values())


def _lost(name: str) -> Callable[[Row], str]:
    def lost(row: Row) -> str:
        own = row["by_set"].get(name, {})
        if row["id"] == "full":
            return percent(own["accuracy"])
        ours = f" (ours {interval('ours_ahead', points)(own)})" if "ours_ahead" in own else ""
        return interval("loss", points)(own) + ours

    return lost


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: what every policy scores at a tenth of the tokens (what passes: a quarter), question unseen and (ring) seen, a panel a
    set, full dashed.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    names = [name for name in (*RECALLED, *EVICTION) if any(row["id"] == name for row in rows)]
    figure = Figure(figsize=(1.6 + 2.2 * len(sets), 1.3 + 0.24 * len(names)), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
        own = [row for row in rows if row["set"] == name]
        for row in own:
            if (row["id"] in names and row["share"] == RATIOS[0]) or row["id"] == "passing":
                place, is_seen = names.index(row["id"]), row["question"] == "seen"
                axes.scatter(100 * row["accuracy"], place, s=30, facecolors="none" if is_seen else "#1f2a44", edgecolors="#1f2a44")
        axes.axvline(100 * next(row["accuracy"] for row in own if row["id"] == "full"), color="#9aa3b5", linestyle="--", linewidth=1)
        axes.set_xlim(-4, 104)
        list_rows(axes, names, name, size=8)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markeredgecolor": "#1f2a44", "markersize": 5}
    legend = [
        Line2D([], [], **dot, color="#1f2a44", label="the question is not seen when tokens are chosen"),
        Line2D([], [], **dot, color="none", label="it is seen"),
        Line2D([], [], color="#9aa3b5", linestyle="--", linewidth=1, label="the full context"),
    ]
    figure.legend(handles=legend, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel(
        f"answers right in %; {100 * RATIOS[0]:.0f} % of the tokens are kept or read (passing: {100 * PASSING_RATIO:.0f} %)", fontsize=8
    )
    return save(figure, path)


def find(chosen: Options) -> Found | None:
    long, seed = Long(chosen.is_tiny), chosen.seeds[0]
    if chosen.is_tiny:
        cells, sets = compute([(arm, seed) for arm in TINY_ARMS], long, chosen), ["single-420"]
    else:
        sets = solved(compute([(arm, seed) for arm in SCREENS], long, chosen))
        there = [arm for name in sets for arm in CELLS[name] if KVPRESS.is_there or not arm.startswith("kvpress")]
        cells = compute([(arm, seed) for arm in there], long, chosen)
    rows = reduce(cells)
    if not rows and cells:
        print(f"screened so far; solved by the full context: {', '.join(sets) or 'none'}")
        return None
    return cells, rows, judge(rows, sets)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="gutenberg_books and babi_en",
    rule="of what holds at most a tenth, some recall and no policy that drops has the lower end of the 95 % interval of its loss above "
    "-2 points on every task (over items)",
    about="this model",
    changed=Changed(
        "holds",
        "2026-12-02: the rule that was written before the cells decides again; from 2026-11-29, when the rows of sketch were known and "
        "before those of passing, a loss under 2 points with 0 in its interval had been enough",
    ),
    remarks=["What recall does not hold lies in a file, from which a token reads what it needs."],
)

if __name__ == "__main__":
    STUDY.main()
