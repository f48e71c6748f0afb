"""What a process holds that samples batch after batch: with the heap's thresholds as the engine sets them, and as glibc moves them.

    python -m bench.heap [--batches 5] [--prompts 34] [--samples 32] [--tokens 48] [--json FILE]

Two processes, one after the other, sample the same (`etude.engine.heap`). Prompts are of different lengths and completions end with their
line, so that rows leave and others take their places, as in a measurement. Processor seconds are of all batches, summed over threads.
"""

import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from etude.device.processor import has_bfloat16
from etude.engine import transformers
from etude.engine.sampling import Sampling
from etude.models.load import load_model
from etude.randomness import seed_for
from experiments.benchmark import Argument, Benchmark, in_process
from experiments.cells import made_here
from experiments.shapes import Shape, prompts_of
from experiments.tables import markdown

WAYS = ("set", "moving")
"""The thresholds."""


def measured(model: str, shape: Shape, batches: int) -> dict[str, Any]:
    """Return each way's numbers, of a process of its own."""
    how = {"model": model, "batches": batches, "prompts": shape.prompts, "samples": shape.samples, "tokens": shape.tokens}
    ways = {way: in_process("bench.heap", "sampled", *how.values(), way == "set") for way in WAYS}
    return {"ways": ways, "settings": how, **made_here()}


def sampled(model: str, batches: int, prompts: int, samples: int, tokens: int, is_set: bool) -> dict[str, Any]:
    """Return the bytes held after loading the model and after each batch."""
    shape = Shape(prompts, samples, tokens)
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
        cut = [prompt[: len(prompt) - 30 * number // len(long)] for number, prompt in enumerate(long)]
        how: dict[str, Any] = {"num_samples": shape.samples, "max_new_tokens": shape.tokens, "sampling": Sampling(), "seed": batch}
        engine.generate(cut, **how, stop_strings=["\n"])
        held.append(held_bytes())
    return {"held_bytes": held, "processor_seconds": time.process_time() - start}


def held_bytes() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def table(found: Mapping[str, Any]) -> str:
    how, lines = found["settings"], []
    for way, row in found["ways"].items():
        lines.append([way, *(f"{held / 2**30:.2f} GiB" for held in row["held_bytes"]), f"{row['processor_seconds']:.1f}"])
    head = ["thresholds", "behind the model", *(f"batch {number + 1}" for number in range(how["batches"])), "processor seconds"]
    sizes = f"Batches of {how['prompts']} x {how['samples']} samples of up to {how['tokens']} tokens, {how['model']}."
    return markdown(head, lines, f"{sizes} {found['hardware']}.")


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "batches": Argument(5),
    "prompts": Argument(34, "of a batch"),
    "samples": Argument(32, "of a prompt"),
    "tokens": Argument(48, "of a sample, at most"),
}
BENCHMARK = Benchmark(
    "heap",
    __doc__,
    ARGUMENTS,
    lambda chosen: measured(chosen.model, Shape(chosen.prompts, chosen.samples, chosen.tokens), chosen.batches),
    table,
)

if __name__ == "__main__":
    BENCHMARK.main()
