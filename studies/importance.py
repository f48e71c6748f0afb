"""Do the scores by which tokens are dropped know what tokens are worth to an answer? And how few tokens does attention read anyway?

    python -m studies.importance --data DIR [--hours H] [--only ID ...] [--tiny]

SmolLM2-135M, tasks of 420 tokens in books (`etude.evaluation.long`). What a token of the text is worth is measured: by how much the right
answer's log-prob falls when its keys and values are left out (`etude.evaluation.long.token_importance`), for question and answer behind it
(`unseen`), or for the answer alone, the question being read with the text (`seen`). A cell of a kind asks of every score, in every layer
and head, how it ranks the same tokens: what the tenth that it ranks first is worth, of what the most valuable tenth is (`worth_kept`;
losses alone are summed), and Spearman's correlation with worth, in which the many tokens that are worth next to nothing count as much as
the others. Scores of a layer are the mean over its heads; those of all layers go by the mean of a token's ranks. The first 4 tokens, which
policies keep anyway, and the last 32, which some do, are left out. Beside the scores stands `hindsight`: the attention that question and
answer then give.

A `sparsity` cell is a length: the share of its attention that each of the last 64 queries of 8 pages of books gives to the hundredth and
the tenth of the tokens that it reads most, of all it sees, and without the first 4 and the 32 nearest to it.

Claim: with the question unseen, what a replay reads (`kvzip`) keeps more worth than every other score does; with the question seen, what
the last queries read (`snapkv`) does (all layers, paired over items, 95 %).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from etude.device.machine import Machine, resolve_device
from etude.evaluation.long.kinds import KINDS
from etude.evaluation.long.multi_policy import Reading
from etude.evaluation.long.task import join_with_and
from etude.evaluation.long.token_importance import token_importance
from etude.evaluation.long.tokenized import TokenizedTask, make_haystack, make_tasks
from etude.evaluation.statistics import rank_correlation, ranks
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.policies import EVICTION
from etude.kv_cache.scores.snapkv import SnapKV
from etude.models.load import load_model
from experiments.cells import Cell, Options, Table, compute, made_here
from experiments.figures import save
from experiments.measures import Verdict, decided, in_points, mean, mean_difference, undecided
from experiments.study import Found, Study
from experiments.tables import Column, Row, interval, name_of, percent, points, table, value
from studies.long_context import MODEL, read_books

CLAIM = "a replay finds most of what tokens are worth where the question comes later, the last queries where it is there"
SEEDS = (130,)
ASKED_KINDS = ("single", "multi_value", "variables", "frequent")
SCORES = ("kvzip", "snapkv", "critical_snapkv", "h2o", "tova", "expected_attention", "key_norm", "key_diff", "streaming", "random")
MEASURES = ("worth_kept", "correlation")
BEST = {"unseen": "kvzip", "seen": "snapkv"}
HINDSIGHT = "hindsight"
TOKENS, N, KEPT = 420, 8, 0.1
FIRST, LAST = 4, 32
"""Tokens that policies, or some of them, keep anyway."""
LENGTHS, TEXTS, QUERIES = (256, 512, 1024, 2048, 4096), 8, 64
SHARES = {"hundredth": 0.01, "tenth": 0.1}
ARMS = (*ASKED_KINDS, *(f"sparsity-{tokens}" for tokens in LENGTHS))
TINY_ARMS = ("single", "sparsity-128")


class Importance(Table):
    """A cell for every kind of task, and for every length."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny, self.model = is_tiny, "tiny-random" if is_tiny else MODEL
        self.tokens, self.n, self.texts = (420, 2, 2) if is_tiny else (TOKENS, N, TEXTS)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        if arm.startswith("sparsity-"):
            return {"model": self.model, "tokens": int(arm.removeprefix("sparsity-")), "texts": self.texts, "queries": QUERIES}
        policies = {name: asdict(replace(EVICTION[name], keep_ratio=KEPT)) for name in SCORES}
        return {"model": self.model, "kind": arm, "tokens": self.tokens, "n": self.n, "policies": policies}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure how each score ranks an item's tokens, or how much of attention few tokens of a text have."""
        place = resolve_device(Machine(dtype="float32"))
        model, tokenizer = load_model(self.model, device=place.device)
        if self.is_tiny:
            model.config.max_position_embeddings = 1024
        haystack = make_haystack(read_books(chosen.data), tokenizer)
        cell: Cell = dict(made_here(place.precision))
        if arm.startswith("sparsity-"):
            length = int(arm.removeprefix("sparsity-"))
            tasks = make_tasks(tokenizer, "single", KINDS["single"], haystack, tokens=length + 200, n=self.texts, seed=seed)
            return cell | {"texts": [shares_of(model, each.text[-length:]) for each in tasks]}
        tasks = make_tasks(tokenizer, arm, KINDS[arm], haystack, tokens=self.tokens, n=self.n, seed=seed)
        return cell | {"items": [ranked(model, tokenizer, each) for each in tasks]}


@torch.inference_mode()
def ranked(model: Any, tokenizer: Any, each: TokenizedTask) -> dict[str, Any]:
    """Rank the tokens of one item, by way to ask: the answer's log-prob, the share of all worth that the most valuable tenth has, and of
    every score what its own tenth keeps of that, and its correlation with worth, by layer and over all.
    """
    dropping = {name: replace(EVICTION[name], keep_ratio=KEPT).for_tokenizer(tokenizer) for name in SCORES}
    answer = tokenizer(" " + join_with_and(each.task.answers), add_special_tokens=False)["input_ids"]
    unseen = Reading(model, list(dropping.values()))
    unseen.read(each.text)
    seen = unseen.fork()
    seen.read(each.question)
    own, found = slice(FIRST, len(each.text) - LAST), dict[str, Any]()
    for mode, reading, behind in (("unseen", unseen, [*each.question, *answer]), ("seen", seen, answer)):
        full, worth_T = token_importance(model, each.text, each.question, answer, is_seen=mode == "seen")
        worth_T = worth_T[own]
        by_score = {name: [policy.score(held) for held in reading.held(policy)] for name, policy in dropping.items()}
        by_score[HINDSIGHT] = reading.read_by(behind)
        losses_T = worth_T.clamp(min=0)
        share = float(losses_T.topk(len(losses_T) // 10).values.sum() / losses_T.sum())
        scores = {name: _agrees([layer_HT[:, own].double().cpu() for layer_HT in layers], worth_T) for name, layers in by_score.items()}
        found[mode] = {"logprob": round(full, 4), "tenth_has": round(share, 4), "scores": scores}
    return found


def _agrees(layers: Sequence[torch.Tensor], worth_T: torch.Tensor) -> dict[str, Any]:
    """Compare importance [H, T] by layer with worth."""
    wanted, losses_T, size = worth_T.tolist(), worth_T.clamp(min=0), len(worth_T) // 10
    ranks_T = torch.from_numpy(np.mean([ranks(head_T.tolist()) for layer_HT in layers for head_T in layer_HT], axis=0))
    best = losses_T.topk(size).values.sum()
    measures: dict[str, Callable[[torch.Tensor], float]] = {
        "worth_kept": lambda importance_T: float(losses_T[importance_T.topk(size).indices].sum() / best),
        "correlation": lambda importance_T: rank_correlation(importance_T.tolist(), wanted),
    }
    return {
        name: {
            "by_layer": [round(fmean(measure(head_T) for head_T in layer_HT), 4) for layer_HT in layers],
            "all": round(measure(ranks_T), 4),
        }
        for name, measure in measures.items()
    }


@torch.inference_mode()
def shares_of(model: Any, tokens: Sequence[int]) -> dict[str, list[list[float]]]:
    """Return by layer and query head the share of attention of the tokens that are read most, the mean over the last queries."""
    policy = EvictionPolicy(SnapKV(queries=QUERIES))
    reading = Reading(model, [policy])
    reading.read(tokens)
    found: dict[str, list[list[float]]] = {f"{name}{rest}": [] for rest in ("", "_far") for name in SHARES}
    for held in reading.held(policy):
        read_NQT = held.attention(QUERIES).flatten(0, 1).double().cpu()
        place_Q1 = held.seen - read_NQT.shape[1] + torch.arange(read_NQT.shape[1])[:, None]
        is_far_QT = (torch.arange(held.seen) >= FIRST) & (torch.arange(held.seen) <= place_Q1 - LAST)
        for rest, weights_NQT in (("", read_NQT), ("_far", read_NQT * is_far_QT)):
            sorted_NQT = weights_NQT.sort(dim=-1, descending=True).values.cumsum(-1)
            for name, share in SHARES.items():
                most = max(1, round(share * held.seen))
                read_N = (sorted_NQT[:, :, most - 1] / sorted_NQT[:, :, -1]).mean(1)
                found[f"{name}{rest}"].append([round(value, 4) for value in read_N.tolist()])
    return found


# ---------------------------------------------------------------------- from cells to rows


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for every way to ask and score, for each kind and over all; then one for every length."""
    kinds = {cell["id"]: cell["items"] for cell in cells if "items" in cell}
    sets = {**kinds, **({"all": [item for items in kinds.values() for item in items]} if len(kinds) > 1 else {})}
    rows = [_row(mode, name, which, items) for which, items in sets.items() for mode in BEST for name in (*SCORES, HINDSIGHT)]
    lengths = sorted((cell for cell in cells if "texts" in cell), key=lambda cell: int(cell["id"].removeprefix("sparsity-")))
    return rows + [_sparsity(int(cell["id"].removeprefix("sparsity-")), cell["texts"]) for cell in lengths]


def _row(mode: str, name: str, which: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": name, "set": which, "question": mode, "n": len(items), "seeds": 1}
    for measure in MEASURES:
        own = [item[mode]["scores"][name][measure] for item in items]
        row |= mean(measure, [each["all"] for each in own])
        row[f"{measure}_by_layer"] = [round(fmean(layer), 4) for layer in zip(*(each["by_layer"] for each in own), strict=True)]
    row["tenth_has"] = fmean(item[mode]["tenth_has"] for item in items)
    if name != BEST[mode]:
        its, best = ([item[mode]["scores"][each]["worth_kept"]["all"] for item in items] for each in (name, BEST[mode]))
        row |= mean_difference("best_ahead", its, best)
    return row


def _sparsity(tokens: int, texts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "sparsity", "set": f"{tokens:,} tokens", "n": len(texts), "seeds": 1}
    for name in texts[0]:
        by_head = [[fmean(heads) for heads in zip(*layers, strict=True)] for layers in zip(*(text[name] for text in texts), strict=True)]
        row |= mean(name, [fmean(value for layer in text[name] for value in layer) for text in texts])
        row[f"{name}_by_head"] = [[round(value, 4) for value in layer] for layer in by_head]
    return row


def judge(rows: Sequence[Row], kinds: Sequence[str]) -> Verdict:
    """Judge the claim over all kinds; hindsight is no score."""
    own = [row for row in rows if row["set"] == "all" and row["id"] != HINDSIGHT]
    if missing := [kind for kind in kinds if not any(row["set"] == kind for row in rows)]:
        return undecided(missing)
    said, holds = [], True
    for mode, best in BEST.items():
        others = {row["id"]: row for row in own if row["question"] == mode and row["id"] != best}
        mine = next(row for row in own if row["question"] == mode and row["id"] == best)
        nearest = min(others.values(), key=lambda row: row["best_ahead"])
        ahead = in_points(nearest, "best_ahead", unit=" points")
        said.append(f"{mode}: {best} keeps {mine['worth_kept']:.0%} of worth, ahead of {nearest['id']} by {ahead}")
        holds &= all(row["best_ahead_low"] > 0 for row in others.values())
    return decided(holds, "; ".join(said))


SHARES_READ = {
    "hundredth": "attention in a hundredth",
    "tenth": "attention in a tenth",
    "hundredth_far": "attention in a hundredth, far",
    "tenth_far": "attention in a tenth, far",
}


def show(rows: Sequence[Row]) -> str:
    """Write one line a score and way to ask: what its tenth keeps of worth, over all kinds and of each; then one a length: attention's
    shares.
    """
    ranked = [row for row in rows if "worth_kept" in row]
    first, *others = sorted({row["set"]: None for row in ranked}, key=lambda name: name != "all")
    kept = {(row["question"], row["id"], row["set"]): row["worth_kept"] for row in ranked}

    def of_kind(kind: str) -> Callable[[Row], str]:
        return lambda row: percent(kept[row["question"], row["id"], kind])

    columns = [
        Column("question", itemgetter("question")),
        Column("score", name_of),
        Column(f"{first}: worth kept", interval("worth_kept", percent)),
        *(Column(f"{kind}: worth kept", of_kind(kind)) for kind in others),
        Column("points behind", interval("best_ahead", points)),
        Column("rank correlation", value("correlation", "{:+.2f}".format)),
    ]
    own, best = [row for row in ranked if row["set"] == first], dict.fromkeys(row["id"] for row in ranked if "best_ahead" not in row)
    below = f"{own[0]['n']} items; {', '.join(best)} is what others are compared with; intervals (95 %) over items, paired."
    found = table(own, columns, below)
    if lengths := [row for row in rows if "tenth_far" in row]:
        columns = [Column("length", itemgetter("set")), *(Column(head, interval(name, percent)) for name, head in SHARES_READ.items())]
        far = "far: without the first 4 and the nearest 32; intervals (95 %) over texts, between them layers and heads."
        found += "\n" + table(lengths, columns, f"{lengths[0]['n']} texts; {far}")
    return found


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: what every score keeps of worth by layer, question unseen and seen; attention's share by layer, length and head."""
    which = "all" if any(row["set"] == "all" for row in rows) else rows[0]["set"]
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    panels: list[Axes] = list(figure.subplots(2, 2).flatten())
    own = [row for row in rows if row["set"] == which and "worth_kept_by_layer" in row]
    for axes, mode in zip(panels, BEST, strict=False):
        for row in (row for row in own if row["question"] == mode):
            is_quiet = row["id"] in ("random", HINDSIGHT)
            style: dict[str, Any] = {"color": "#9aa3b5", "linestyle": "--" if row["id"] == HINDSIGHT else ":"} if is_quiet else {}
            axes.plot([100 * value for value in row["worth_kept_by_layer"]], label=row["id"].replace("_", " "), linewidth=1.2, **style)
        axes.set_title(f"% of worth in a score's own tenth, question {mode}", loc="left", fontsize=9)
    if own:
        panels[1].legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    lengths = [row for row in rows if row["id"] == "sparsity"]
    for row in lengths:
        panels[2].plot([100 * fmean(heads) for heads in row["tenth_far_by_head"]], label=row["set"], linewidth=1.2)
    panels[2].set_title("% of attention to far tokens in the tenth read most", loc="left", fontsize=9)
    if lengths:
        panels[2].legend(frameon=False, fontsize=7)
        shown = panels[3].imshow(torch.tensor(lengths[-1]["tenth_far_by_head"]).T, cmap="magma", vmin=0, vmax=1, aspect="auto")
        figure.colorbar(shown, ax=panels[3])
        panels[3].set_title(f"the same by layer and head, {lengths[-1]['set']}", loc="left", fontsize=9)
        panels[3].set_ylabel("head", fontsize=8)
        panels[3].set_xlabel("layer", fontsize=8)
    for axes in panels[:3]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("layer", fontsize=8)
        axes.set_ylim(0)
    return save(figure, path)


def find(chosen: Options) -> Found:
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms], Importance(chosen.is_tiny), chosen)
    rows = reduce(cells)
    return cells, rows, undecided() if chosen.is_tiny else judge(rows, ASKED_KINDS)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="gutenberg_books",
    rule="with the question unseen kvzip, with it seen snapkv, keeps more worth than every other score, by the whole 95 % interval over "
    "items",
    about="this model",
    remarks=[
        "Ranks averaged over layers and heads are not how policies choose: the measure gives kvzip little of what it keeps in use. "
        "`random` is one fixed ranking by place."
    ],
)

if __name__ == "__main__":
    STUDY.main()
