"""Where the seconds of one step of practice go: by kind of operation, with etude's kernels and without.

    python -m bench.profile [--json FILE] [--rounds 3] [--prompt_tokens 70] [--tokens 48]

The same new prompts go to both by turns, as in `bench.step`. Seconds are those under the profiler, which slows small operations; beside
them stands what the step takes without it. Median over the rounds.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.peer import Peer, Running
from bench.rollout import Shape, prompts_of
from bench.turns import by_turns
from bench.written import write
from etude.device.processor import has_bfloat16
from etude.errors import UserError
from etude.models.load import convert, load_model
from etude.randomness import seed_for
from etude.training.run_folder import environment

WAYS = {"by torch's operations": Peer("etude_step.py", variables={"CXX": ""}), "with kernels": Peer("etude_step.py")}
STAGES = ("sampling", "learning")
TINY = Shape(prompts=2, samples=2, tokens=4, prompt_tokens=9)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3, help="beside a first one that is not counted")
    parser.add_argument("--prompt_tokens", type=int, default=70)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    try:
        found = measured(chosen.model, Shape(prompt_tokens=chosen.prompt_tokens, tokens=chosen.tokens), chosen.rounds, chosen.seed)
    except UserError as error:
        sys.exit(f"bench.profile: {error}")
    print(table(found))
    if chosen.json:
        write(found, chosen.json, table(found))


def measured(model: str, shape: Shape, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Seconds of each way, stage and kind of operation."""
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
    where = environment()
    return {
        "shape": asdict(shape),
        "seconds": {name: _plain(answers) for name, answers in plain.items()},
        "parts": {
            name: {stage: _medians([answer["parts"][stage] for answer in answers]) for stage in STAGES} for name, answers in parted.items()
        },
        "settings": {"model": model, "rounds": rounds, "seed": seed, "dtype": dtype, "threads": settings["threads"]},
        "hardware": f"{where['processor']}, {where['threads']} threads",
        "commit": where["commit"],
    }


def _plain(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sampling = median(answer["sample_seconds"] for answer in answers)
    return {"sampling": sampling, "learning": median(answer["seconds"] - answer["sample_seconds"] for answer in answers)}


def _medians(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    kinds = {kind for part in parts for kind in part}
    return {kind: median(part.get(kind, 0.0) for part in parts) for kind in sorted(kinds)}


def table(found: Mapping[str, Any]) -> str:
    """A line a stage and kind, in Markdown."""
    ways = list(WAYS)
    lines = ["| stage | kind of operation | " + " | ".join(f"{way}, seconds" for way in ways) + " |", "|" + "---|" * (2 + len(ways))]
    for stage in STAGES:
        lines.append(f"| {stage} | all, without the profiler | " + " | ".join(f"{found['seconds'][way][stage]:.2f}" for way in ways) + " |")
        parts = [found["parts"][way][stage] for way in ways]
        kinds = sorted({kind for part in parts for kind in part}, key=lambda kind: -max(part.get(kind, 0.0) for part in parts))
        lines += [f"| | {kind} | " + " | ".join(f"{part.get(kind, 0.0):.2f}" for part in parts) + " |" for kind in kinds]
    settings = found["settings"]
    return "\n".join(
        [*lines, "", f"{Shape(**found['shape'])}. Median of {settings['rounds']} rounds. {found['hardware']}, {settings['dtype']}.", ""]
    )


if __name__ == "__main__":
    main()
