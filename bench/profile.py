"""Where the seconds of one step of practice go: by kind of operation, with etude's kernels and without.

    python -m bench.profile [--json FILE] [--rounds 3] [--prompt_tokens 70] [--tokens 48]

The same new prompts go to both by turns, as in `bench.step`. Seconds are those under the profiler, which slows small operations; beside
them stands what the step takes without it. Median over the rounds.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from etude.device.processor import has_bfloat16
from etude.models.load import convert, load_model
from etude.randomness import seed_for
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.peer import Peer, Running
from experiments.shapes import Shape, prompts_of
from experiments.tables import markdown
from experiments.turns import by_turns

WAYS = {"by torch's operations": Peer("etude_step.py", variables={"CXX": ""}), "with kernels": Peer("etude_step.py")}
STAGES = ("sampling", "learning")
TINY = Shape(prompts=2, samples=2, tokens=4, prompt_tokens=9)


def measured(model: str, shape: Shape, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Measure the seconds of each way, stage and kind of operation."""
    dtype = str(torch.bfloat16 if has_bfloat16() else torch.float32).removeprefix("torch.")
    _, tokenizer = load_model(model)
    requests = []
    for number in range(2 * (rounds + 1)):
        texts = [str(tokenizer.decode(prompt)) for prompt in prompts_of(shape, tokenizer, seed_for(seed, number))]
        requests.append({"prompts": texts, "seed": number, "with_signal": shape.prompts, "parted": number > rounds})
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        settings = {"model": str(convert(model, Path(scratch) / "model")), "dtype": dtype, "threads": torch.get_num_threads()}
        running = {name: stack.enter_context(Running(peer, settings | {"shape": asdict(shape)})) for name, peer in WAYS.items()}
        plain = by_turns(running, requests[: rounds + 1], shape.all_tokens)
        parted = by_turns(running, requests[rounds:], shape.all_tokens)
    return {
        "shape": asdict(shape),
        "seconds": {name: _plain(answers) for name, answers in plain.items()},
        "parts": {
            name: {stage: _medians([answer["parts"][stage] for answer in answers]) for stage in STAGES} for name, answers in parted.items()
        },
        "settings": {"model": model, "rounds": rounds, "seed": seed, "dtype": dtype, "threads": settings["threads"]},
        **made_here(),
    }


def _plain(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sampling = median(answer["sample_seconds"] for answer in answers)
    return {"sampling": sampling, "learning": median(answer["seconds"] - answer["sample_seconds"] for answer in answers)}


def _medians(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    kinds = {kind for part in parts for kind in part}
    return {kind: median(part.get(kind, 0.0) for part in parts) for kind in sorted(kinds)}


def table(found: Mapping[str, Any]) -> str:
    """Write one line a stage and kind of operation."""
    ways, lines = list(WAYS), []
    for stage in STAGES:
        lines.append([stage, "all, without the profiler", *(f"{found['seconds'][way][stage]:.2f}" for way in ways)])
        parts = [found["parts"][way][stage] for way in ways]
        kinds = sorted({kind for part in parts for kind in part}, key=lambda kind: -max(part.get(kind, 0.0) for part in parts))
        lines += [["", kind, *(f"{part.get(kind, 0.0):.2f}" for part in parts)] for kind in kinds]
    settings = found["settings"]
    below = f"{Shape(**found['shape'])}. Median of {settings['rounds']} rounds. {found['hardware']}, {settings['dtype']}."
    return markdown(["stage", "kind of operation", *(f"{way}, seconds" for way in ways)], lines, below)


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "rounds": Argument(3, "beside a first one that is not counted"),
    "prompt_tokens": Argument(70),
    "tokens": Argument(48),
    "seed": Argument(0),
}
BENCHMARK = Benchmark(
    "profile",
    __doc__,
    ARGUMENTS,
    lambda chosen: measured(chosen.model, Shape(prompt_tokens=chosen.prompt_tokens, tokens=chosen.tokens), chosen.rounds, chosen.seed),
    table,
)

if __name__ == "__main__":
    BENCHMARK.main()
