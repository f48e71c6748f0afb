"""Seconds of one step of practice: sample groups, score them, update the weights. etude beside TRL's GRPO on the same prompts.

    make bench-peers                                    once: the peers' environments
    python -m bench.step [--json FILE] [--long] [--rounds 4] [--peers trl-default trl-tuned] [--cells DIR]

Every step takes new prompts and samples so many completions of exactly so many tokens; a score that costs nothing tells all of them apart,
so that no group is dropped, and one update is made (AdamW, clipped policy gradient, GRPO advantages, no anchor, all weights trained).
`trl-default` is what `use_cpu=True` and nothing else gives; `trl-tuned` has half-precision weights, no gradient checkpointing, and
micro-batches of 16 sequences. What etude saves where half of the groups have no signal is timed after it, and is in no ratio.
Ratios are a peer's seconds by etude's, paired within a round: median, lowest and highest.

A shape is a cell, kept in DIR: a command that was killed goes on with the shapes that are there, and refuses those of other settings.
"""

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from etude.device.processor import has_bfloat16
from etude.errors import UserError
from etude.models.load import convert, load_model
from etude.randomness import seed_for
from experiments.benchmark import Argument, Benchmark
from experiments.cells import Cell, Options, Table, made_here
from experiments.peer import Peer, Running
from experiments.shapes import Shape, found_of, prompts_of
from experiments.tables import markdown
from experiments.turns import OURS, by_turns, peaks, ratios, seconds_of, spread

PEERS = {OURS: Peer("etude_step.py"), "trl-default": Peer("trl_step.py", ".venv-trl"), "trl-tuned": Peer("trl_step.py", ".venv-trl")}
HALF = "etude, half of the groups without signal"
FIGURE = Shape()
"""The shape whose ratios are the figure."""
LONG = (Shape(prompt_tokens=400), Shape(tokens=256))
TINY = Shape(prompts=2, samples=2, tokens=4, prompt_tokens=9)
CELLS = Path("runs/step")


def found_of_shapes(chosen: Namespace) -> dict[str, Any]:
    plan = Plan.of(chosen.model, (FIGURE, *(LONG if chosen.long else ())), chosen.peers, chosen.rounds)
    return measured(plan, chosen.seed, chosen.cells)


def measured(plan: "Plan", seed: int, out: Path) -> dict[str, Any]:
    """Measure every shape's seconds and ratios where they are not there yet; the ratios of the first shape count."""
    found = found_of(plan, seed, out)
    return {"ratios": {name: found["shapes"][0]["ratio"][name]["median"] for name in plan.peers}} | found


@dataclass(frozen=True)
class Plan(Table):
    """What is asked of whom: a table with a cell a shape."""

    model: str
    shapes: Mapping[str, Shape]
    peers: Sequence[str]
    rounds: int
    dtype: str

    @classmethod
    def of(cls, model: str, shapes: Sequence[Shape], peers: Sequence[str], rounds: int) -> "Plan":
        """Make a plan for this machine; its faster type of matrix products is found out now, once for all cells."""
        if rounds < 1:
            raise UserError(f"--rounds must be at least 1, got {rounds}")
        named = {f"{shape.prompts}x{shape.samples}x{shape.tokens}-prompt-{shape.prompt_tokens}": shape for shape in shapes}
        dtype = str(torch.bfloat16 if has_bfloat16() else torch.float32).removeprefix("torch.")
        return cls(model, named, peers, rounds, dtype)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return {"model": self.model, "shape": arm, "peers": list(self.peers), "rounds": self.rounds, "dtype": self.dtype}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure a shape's seconds, ratios and peaks, and note the peers' versions."""
        shape = self.shapes[arm]
        _, tokenizer = load_model(self.model)
        texts = [[str(tokenizer.decode(p)) for p in prompts_of(shape, tokenizer, seed_for(seed, k))] for k in range(self.rounds + 1)]
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
            settings = {"model": str(convert(self.model, Path(scratch) / "model")), "dtype": self.dtype, "threads": torch.get_num_threads()}
            running = {}
            for name in (OURS, *self.peers):
                more = {"shape": asdict(shape), "texts": list(chain(*texts)), "is_tuned": name == "trl-tuned"}
                running[name] = stack.enter_context(Running(PEERS[name], settings | more))
            row = _row(shape, running, texts)
            about = {name: peer.about for name, peer in running.items()}
        print(f"{shape}: " + ", ".join(f"{name} {each['median']:.1f} s" for name, each in row["seconds"].items()), flush=True)
        return row | {"about": about, **made_here()}


def _row(shape: Shape, running: Mapping[str, Running], texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    requests = [{"prompts": prompts, "seed": number, "with_signal": shape.prompts} for number, prompts in enumerate(texts)]
    answers = by_turns(running, requests, shape.all_tokens)
    half = [running[OURS].ask(request | {"with_signal": shape.prompts // 2}) for request in requests[1:]]
    return {
        "shape": asdict(shape),
        "seconds": {name: spread(seconds_of(found)) for name, found in (answers | {HALF: half}).items()},
        "sample_seconds": spread([answer["sample_seconds"] for answer in answers[OURS]]),
        "ratio": ratios(answers, OURS),
        "peak_bytes": peaks(answers),
    }


def table(found: Mapping[str, Any]) -> str:
    """Write one line a shape."""
    peers = list(found["ratios"])
    head = ["prompts x samples x tokens", "prompt", f"{OURS}, seconds", "of them sampling", *peers, *(f"{name} / {OURS}" for name in peers)]
    head += ["half of the groups without signal", "peak memory"]
    lines = []
    for row in found["shapes"]:
        shape = row["shape"]
        cells = [f"{shape['prompts']} x {shape['samples']} x {shape['tokens']}", f"{shape['prompt_tokens']}"]
        every = [row["seconds"][OURS], row["sample_seconds"], *(row["seconds"][name] for name in peers)]
        cells += ["{median:.1f} [{low:.1f}, {high:.1f}]".format(**seconds) for seconds in every]
        cells += ["{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["ratio"][name]) for name in peers]
        cells += [f"{row['seconds'][HALF]['median']:.1f}"]
        cells += [", ".join(f"{name} {row['peak_bytes'][name] / 2**30:.1f}" for name in (OURS, *peers)) + " GiB"]
        lines.append(cells)
    settings = found["settings"]
    closing = f"Median [lowest, highest] of {settings['rounds']} rounds. {found['hardware']}, {settings['dtype']}."
    return markdown(head, lines, closing)


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "rounds": Argument(4, "beside a first one that is not counted"),
    "peers": Argument(["trl-default", "trl-tuned"], choices=("trl-default", "trl-tuned")),
    "long": Argument(False, "also prompts of 400 tokens, and completions of 256"),
    "seed": Argument(0),
    "cells": Argument(CELLS, "where finished shapes are kept"),
}
BENCHMARK = Benchmark("step", __doc__, ARGUMENTS, found_of_shapes, table)

if __name__ == "__main__":
    BENCHMARK.main()
