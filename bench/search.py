"""Seconds of a beam search over steps: on keys and values that the engine keeps, and with every beginning computed again.

    python -m bench.search [--json FILE] [--rounds 3] [--depth 6] [--width 4] [--cells DIR]

The search is one of `width` beams with `width` continuations each, `depth` steps of 16 tokens deep, no answer ending before; a node's
worth is a number of its own that costs nothing, so that all ways make the same search, by turns in one process:

kept          as etude searches: nothing is computed twice
anew          each beginning is computed again when it is gone on with, once for all of its continuations
apart         each continuation computes its own beginning, but for prompts: without prefixes in common

Then an update learns from all answers of the trees, `shared`, as etude does, each beginning computed once, and `each`, a row an answer.

A ratio is a way's seconds by those of `kept` (of `each` by those of `shared`), paired within a round: median, lowest and highest. Positions
are those given to the model. The longest shape takes a quarter of an hour: finished ones are kept, and another call goes on with the rest.
"""

import copy
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from etude.device.processor import has_bfloat16
from etude.engine.completion import Prefix
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.learn.example import demonstration
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import negative_log_likelihood
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.rollouts.search.beam import beam
from etude.rollouts.search.expansion import Expansion
from etude.rollouts.search.growing import search
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Node, Tree
from etude.tasks.task import Task
from experiments.benchmark import Argument, Benchmark
from experiments.cells import Cell, Options, Table, made_here
from experiments.shapes import Shape, found_of, prompts_of
from experiments.tables import markdown
from experiments.turns import spread

STEP_TOKENS = 16
CELLS = Path("runs/search")
SHAPES = tuple(Shape(prompts=prompts, prompt_tokens=tokens) for prompts in (1, 8) for tokens in (70, 400))


class Anew(TransformersEngine):
    """An engine that computes a prefix again whenever it is extended."""

    def extend(self, *given: Any, **named: Any) -> list[Prefix]:
        return super().extend(*given, **named, keeps=False)


class Apart(Anew):
    """An engine that computes a prefix again for every continuation."""

    def _reopen(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        opened = self.open([prefix.tokens for prefix in prefixes])
        return [replace(prefix, cached=each.cached) for prefix, each in zip(prefixes, opened, strict=True)]


UPDATES = ("shared", "each")
WAYS = {"kept": TransformersEngine, "anew": Anew, "apart": Apart}


def found_of_shapes(chosen: Namespace) -> dict[str, Any]:
    return measured(Plan.of(chosen.model, SHAPES, chosen.depth, chosen.width, chosen.rounds), chosen.seed, chosen.cells)


def measured(plan: "Plan", seed: int, out: Path) -> dict[str, Any]:
    """Measure every shape's seconds, positions and ratios where they are not there yet."""
    found = found_of(plan, seed, out)
    ratios = {name: min(row["ratio"][name]["median"] for row in found["shapes"]) for name in WAYS if name != "kept"}
    return {"ratios": ratios, "update_ratio": min(row["update_ratio"]["median"] for row in found["shapes"])} | found


@dataclass(frozen=True)
class Plan(Table):
    """What is searched, and how often: a table with a cell a shape."""

    model: str
    shapes: Mapping[str, Shape]
    depth: int
    width: int
    rounds: int
    dtype: str

    @classmethod
    def of(cls, model: str, shapes: Sequence[Shape], depth: int, width: int, rounds: int) -> "Plan":
        """Make a plan for this machine; its faster type of matrix products is found out now, once for all cells."""
        for name, value in (("--depth", depth), ("--width", width), ("--rounds", rounds)):
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        own = [replace(shape, samples=width, tokens=depth * STEP_TOKENS) for shape in shapes]
        named = {f"{shape.prompts}-prompt-{shape.prompt_tokens}": shape for shape in own}
        dtype = str(torch.bfloat16 if has_bfloat16() else torch.float32).removeprefix("torch.")
        return cls(model, named, depth, width, rounds, dtype)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("model", "depth", "width", "rounds", "dtype")}
        return own | {"shape": arm, "step_tokens": STEP_TOKENS}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure a shape's seconds, positions and ratios."""
        loaded, tokenizer = load_model(self.model)
        dtype = getattr(torch, self.dtype)
        engines = {name: kind(loaded, tokenizer, dtype=dtype) for name, kind in WAYS.items()}
        for engine in engines.values():
            engine.end_tokens = frozenset()
        stream = Stream("imitate", negative_log_likelihood)
        learners = {
            name: Learner(copy.deepcopy(loaded), OptimizerSettings(), [stream], dtype, shares_prefixes=name == "shared") for name in UPDATES
        }
        row = _row(engines, learners, self.shapes[arm], tokenizer, self.width, self.rounds, seed)
        seconds = row["seconds"] | row["update_seconds"]
        print(f"{self.shapes[arm]}: " + ", ".join(f"{name} {each['median']:.2f} s" for name, each in seconds.items()), flush=True)
        return row | made_here()


def _row(
    engines: Mapping[str, TransformersEngine],
    learners: Mapping[str, Learner],
    shape: Shape,
    tokenizer: Any,
    width: int,
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    learned: dict[str, list[float]] = {name: [] for name in learners}
    positions: dict[str, int] = {}
    sampled = 0
    for number in range(rounds + 1):
        prompts, names = prompts_of(shape, tokenizer, seed_for(seed, number)), list(engines)
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            engine = engines[name]
            before, began = engine.computed_tokens, time.perf_counter()
            trees = _searched(engine, prompts, shape.tokens, width, number)
            if number > 0:
                seconds[name].append(time.perf_counter() - began)
            positions[name], sampled = engine.computed_tokens - before, sum(tree.sampled_tokens for tree in trees)
        answers = [demonstration(a.prompt, a.own_tokens) for tree in trees for a in tree.group().attempts]
        for name, learner in learners.items():
            began = time.perf_counter()
            learner.update(answers)
            if number > 0:
                learned[name].append(time.perf_counter() - began)
    ratio = {name: spread([its / mine for its, mine in zip(found, seconds["kept"], strict=True)]) for name, found in seconds.items()}
    return {
        "shape": asdict(shape),
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "ratio": ratio,
        "update_seconds": {name: spread(found) for name, found in learned.items()},
        "update_ratio": spread([each / shared for shared, each in zip(learned["shared"], learned["each"], strict=True)]),
        "positions": positions,
        "sampled_tokens": sampled,
    }


def _searched(engine: TransformersEngine, prompts: Sequence[Sequence[int]], tokens: int, width: int, seed: int) -> list[Tree]:
    steps, tasks = Steps("tokens", max_tokens=STEP_TOKENS), [Task(f"search {number}") for number in range(len(prompts))]
    how: dict[str, Any] = {"steps": steps, "max_new_tokens": tokens, "sampling": Sampling(), "names": (seed,)}
    expansion = Expansion(engine, tasks, prompts, **how)
    search(expansion.trees, partial(beam, beams=width, width=width), expansion, _worth, most_tokens=expansion.most_tokens)
    return expansion.trees


def _worth(pairs: Sequence[tuple[Tree, Node]]) -> list[float | None]:
    """Value a node by its number alone: rounding, which differs between the ways, decides nothing."""
    return [seed_for("worth", node.number) / 2**64 for _, node in pairs]


def table(found: Mapping[str, Any]) -> str:
    """Write one line a shape."""
    settings = found["settings"]
    head = ["searches at once", "prompt", *(f"{name}, seconds" for name in WAYS), *(f"{name} / kept" for name in found["ratios"])]
    head += [f"positions, {name}" for name in WAYS] + ["tokens sampled"]
    head += [f"update {name}, seconds" for name in UPDATES] + ["each / shared"]
    lines = []
    for row in found["shapes"]:
        cells = [str(row["shape"]["prompts"]), str(row["shape"]["prompt_tokens"])]
        cells += ["{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["seconds"][name]) for name in WAYS]
        cells += ["{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["ratio"][name]) for name in found["ratios"]]
        cells += [f"{row['positions'][name]:,}" for name in WAYS] + [f"{row['sampled_tokens']:,}"]
        cells += ["{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["update_seconds"][name]) for name in UPDATES]
        cells.append("{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["update_ratio"]))
        lines.append(cells)
    what = (
        f"Beam search of {settings['depth']} steps of {settings['step_tokens']} tokens, {settings['width']} beams, each continued as often."
    )
    spreads = f"Median [lowest, highest] of {settings['rounds']} rounds. {found['hardware']}, {settings['dtype']}."
    return markdown(head, lines, f"{what} {spreads}")


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "rounds": Argument(3, "beside a first one that is not counted"),
    "depth": Argument(6, "steps"),
    "width": Argument(4, "beams, and continuations of each"),
    "seed": Argument(0),
    "cells": Argument(CELLS, "where finished shapes are kept"),
}
BENCHMARK = Benchmark("search", __doc__, ARGUMENTS, found_of_shapes, table)

if __name__ == "__main__":
    BENCHMARK.main()
