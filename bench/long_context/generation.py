"""What lies beside the model while it generates a long text, a part of `bench.long_context`.

A model of random weights in the same shape, of fewer layers, is given random tokens one by one behind a short prompt, as the engine
generates under a view. By length: what is allocated for the context (counted over the tensors that are there), and how much the process
has grown since the way began; what a way before it gave back and the process kept is not counted.
"""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.heap import held_bytes
from bench.long_context.sparse_prompts import random_model
from etude.engine.forward import find_forward
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.policies import EVICTION, RETRIEVAL
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.view import PolicyView

BUDGET = 512
WAYS: dict[str, CachePolicy] = {
    "full": EvictionPolicy(StreamingLLM()),
    "snapkv": replace(EVICTION["snapkv"], budget_tokens=BUDGET),
    "h2o": replace(EVICTION["h2o"], budget_tokens=BUDGET),
    "arkvale, pages in a file": replace(RETRIEVAL["arkvale"], budget_tokens=BUDGET, offload="file"),
}


@torch.inference_mode()
def generation(config: Any, layers: int, lengths: Sequence[int], ways: Mapping[str, CachePolicy] = WAYS) -> list[dict[str, Any]]:
    """Measure each way: `{"way", "by_length": [{"length", "bytes", "grown_bytes", "ms"}]}`; `ms` a token since the last length."""
    model = random_model(config, layers, max(lengths))
    shared = find_forward(model, model)
    draw, found = torch.Generator().manual_seed(0), []
    prompt = torch.randint(config.vocab_size, (32,), generator=draw).tolist()
    for way, policy in ways.items():
        gc.collect()
        before = held_bytes()
        opened, _ = PolicyView(way, policy).prefill(model, [prompt], 0, shared)
        context: Any = opened.begin(torch.tensor([0]), max(lengths), samples=1)
        del opened
        rows, at = [], len(prompt)
        for length in lengths:
            start, steps = time.perf_counter(), length - at
            for token in torch.randint(config.vocab_size, (steps, 1), generator=draw):
                context.next_logits(token)
            ms = 1000 * (time.perf_counter() - start) / steps
            held = sum(layer.bytes for layer in context.inner.cache.layers)
            rows.append({"length": length, "bytes": held, "grown_bytes": held_bytes() - before, "ms": ms})
            at = length
        found.append({"way": way, "by_length": rows})
        del context
    return found


def table(found: Sequence[Mapping[str, Any]], layers: int) -> str:
    lengths = [row["length"] for row in found[0]["by_length"]]
    lines = [f"| MiB beside the model (grown), ms a token | {' | '.join(f'{length:,} tokens' for length in lengths)} |"]
    lines.append("|---" * (len(lengths) + 1) + "|")
    for each in found:
        cells = [f"{row['bytes'] / 2**20:.1f} ({row['grown_bytes'] / 2**20:.0f}), {row['ms']:.1f}" for row in each["by_length"]]
        lines.append(f"| {each['way']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"One row, {BUDGET} tokens of budget, random weights, {layers} layers.", ""])
