"""What a process holds that samples batch after batch: with the heap's thresholds as the engine sets them, and as glibc moves them.

    python -m bench.heap [--batches 5] [--prompts 34] [--samples 32] [--tokens 48] [--json FILE]

Two processes, one after the other, sample the same (`etude.engine.heap`). Prompts are of different lengths and completions end with their
line, so that rows leave and others take their places, as in a measurement. Processor seconds are of all batches, summed over threads.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from bench import written
from bench.rollout import Shape, prompts_of
from etude.device.processor import has_bfloat16
from etude.engine import transformers
from etude.engine.sampling import Sampling
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.training.run_folder import environment

WAYS = ("set", "moving")
"""The thresholds."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.heap", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=34, help="of a batch")
    parser.add_argument("--samples", type=int, default=32, help="of a prompt")
    parser.add_argument("--tokens", type=int, default=48, help="of a sample, at most")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    shape = Shape(chosen.prompts, chosen.samples, chosen.tokens)
    if chosen.way:
        print(json.dumps(sampled(chosen.model, shape, chosen.batches, is_set=chosen.way == "set")))
        return
    found = measured(chosen.model, shape, chosen.batches)
    print(table(found))
    if chosen.json:
        written.write(found, chosen.json, table(found))


def measured(model: str, shape: Shape, batches: int) -> dict[str, Any]:
    """Each way in a process of its own."""
    how = {"model": model, "batches": batches, "prompts": shape.prompts, "samples": shape.samples, "tokens": shape.tokens}
    command = [sys.executable, "-m", "bench.heap", *(part for name, value in how.items() for part in (f"--{name}", str(value)))]
    ways = {way: json.loads(subprocess.run([*command, "--way", way], stdout=subprocess.PIPE, check=True).stdout) for way in WAYS}
    where = environment()
    return {"ways": ways, "settings": how, "hardware": f"{where['processor']}, {where['threads']} threads", "commit": where["commit"]}


def sampled(model: str, shape: Shape, batches: int, *, is_set: bool) -> dict[str, Any]:
    """Bytes held behind the model and behind each batch."""
    loaded, tokenizer = load_model(model)
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    if is_set:
        engine = transformers.TransformersEngine(loaded, tokenizer, dtype=dtype)
    else:
        with patch.object(transformers, "pin_malloc_thresholds"):
            engine = transformers.TransformersEngine(loaded, tokenizer, dtype=dtype)
    held, start = [held_bytes()], time.process_time()
    for batch in range(batches):
        long = prompts_of(shape, tokenizer, seed_for(batch))
        prompts = [prompt[: len(prompt) - 30 * number // len(long)] for number, prompt in enumerate(long)]
        how: dict[str, Any] = {"num_samples": shape.samples, "max_new_tokens": shape.tokens, "sampling": Sampling(), "seed": batch}
        engine.generate(prompts, **how, stop_strings=["\n"])
        held.append(held_bytes())
    return {"held_bytes": held, "processor_seconds": time.process_time() - start}


def held_bytes() -> int:
    """Pages of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def table(found: dict[str, Any]) -> str:
    how = found["settings"]
    lines = ["| thresholds | behind the model | " + " | ".join(f"batch {i + 1}" for i in range(how["batches"])) + " | processor seconds |"]
    lines.append("|---" * (how["batches"] + 3) + "|")
    for way, row in found["ways"].items():
        held = " | ".join(f"{held / 2**30:.2f} GiB" for held in row["held_bytes"])
        lines.append(f"| {way} | {held} | {row['processor_seconds']:.1f} |")
    closing = (
        f"Batches of {how['prompts']} x {how['samples']} samples of up to {how['tokens']} tokens, {how['model']}. {found['hardware']}."
    )
    return "\n".join([*lines, "", closing, ""])


if __name__ == "__main__":
    main()
