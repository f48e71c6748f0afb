"""Seconds of a generated token behind a long context: transformers' full cache, ours, a tenth of it, and recall by pages and by sketches.

    python -m bench.long_context [--json FILE] [--parts decode sparse generation] [--rows 1 8] [--lengths 1024 2048 4096 8192] [--steps 6]
                                 [--rounds 3]

Contexts are random keys and values, as many as the model has layers and heads, so that their making costs nothing; by turns in one process,
each way anew in every round, its first step not counted. Transformers' steps are calls of the model, ours those of the engine under a view;
both in the precision that the machine decides on.
`limit` is how fast the bytes that a step must read could be read: the weights once, and of every row the keys and values that the way
reads, at the speed at which this machine sums as many bytes of a float32 tensor as torch makes it, and, `huge`, of one that lies in huge
pages, as most of our weights and contexts do.
Ratios are of medians in the same round; `decode_vs_transformers` is that of the tenth to transformers at the most rows and the longest
context. The other part, of prompts that are read sparsely, is `bench.sparse_prompts`: `sparse_attention_8k` is attention's ratio at 8,192
tokens, `sparse_prefill_32k` that of a whole prefill at 32,768. What lies beside a model that generates 16,384 tokens is
`bench.long_generation`.
"""

import gc
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from transformers.cache_utils import Cache, DynamicCache

from bench.long_context import generation, sparse_prompts
from etude.device.machine import Machine, resolve_device
from etude.engine.copied import CopiedContext
from etude.engine.forward import find_forward
from etude.engine.protocols import Forward
from etude.engine.working_copy import WorkingCopy
from etude.kernels import huge_pages
from etude.kv_cache.attachment import Attachment
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.policies import EVICTION, RETRIEVAL
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.view import Peak, PolicyContext
from etude.models.load import cast_weights, load_model
from etude.training.run_folder import environment
from experiments.benchmark import Argument, Benchmark
from experiments.figures import save
from experiments.tables import markdown
from experiments.turns import spread

SHARE = 0.1
ONES: dict[str, Callable[[int], torch.Tensor]] = {
    "limit": torch.ones,
    "huge": lambda count: huge_pages.zeros(count, dtype=torch.float32).fill_(1),
}
PARTS = ("decode", "sparse", "generation")
WAYS: dict[str, CachePolicy | None] = {
    "transformers": None,
    "full": EvictionPolicy(StreamingLLM()),
    "tenth": replace(EVICTION["streaming"], keep_ratio=SHARE, every_tokens=0),
    "recall": replace(RETRIEVAL["arkvale"], keep_ratio=SHARE),
    "sketch": replace(RETRIEVAL["sketch"], keep_ratio=SHARE),
    "passing": replace(RETRIEVAL["sketch"], keep_ratio=0.25, stream_per_layer=True, offload="file"),
}
"""What passes is read from a file, anew for every token and layer; its limit is the memory's all the same."""
COLOURS = ("#9aa3b5", "#1f2a44", "#c2571a", "#2f7d5b", "#7a4fa3", "#b8a13c")


def found_of(chosen: Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "decode" in chosen.parts:
        found |= measured(chosen.model, chosen.rows, chosen.lengths, chosen.steps, chosen.rounds)
    if "sparse" in chosen.parts:
        found |= sparse_measured(chosen.model, 8192, chosen.prefills, chosen.layers, chosen.rounds)
    if "generation" in chosen.parts:
        model, _ = load_model(chosen.model)
        own = generation.generation(model.config, chosen.layers, chosen.generated)
        found |= {"generation": own, "generation_layers": chosen.layers}
    return found


@torch.inference_mode()
def measured(name: str, rows: Sequence[int], lengths: Sequence[int], steps: int, rounds: int) -> dict[str, Any]:
    """Measure the seconds a step of every way, number of rows and length, and their ratios."""
    place = resolve_device(Machine(device="cpu"))
    model, _ = load_model(name, device=place.device)
    working = WorkingCopy(model, place.dtype).model if place.dtype != torch.float32 else model
    shared = find_forward(model, working)
    forward = shared.forward if shared else None
    model = cast_weights(model, place.dtype)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    speeds = {limit: bytes_a_second(ones(weights // 4)) for limit, ones in ONES.items()}
    shapes: list[dict[str, Any]] = []
    for count in rows:
        for length in lengths:
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for turn in range(rounds):
                for way, policy in WAYS.items():
                    seconds[way].append(_step_seconds(working if policy else model, forward, policy, count, length, steps, turn))
            ratios = {
                way: spread([its / mine for mine, its in zip(own, seconds["transformers"], strict=True)]) for way, own in seconds.items()
            }
            read = {way: weights + count * _read_bytes(model, policy, length) for way, policy in WAYS.items()}
            shapes.append({"rows": count, "length": length, "seconds": {way: spread(own) for way, own in seconds.items()}})
            shapes[-1] |= {"times_as_fast": ratios}
            shapes[-1] |= {limit: {way: read[way] / speed / median(own) for way, own in seconds.items()} for limit, speed in speeds.items()}
    last = max(shapes, key=lambda shape: (shape["rows"], shape["length"]))
    where = environment()
    facts = {"model": name, "steps": steps, "rounds": rounds, "share": SHARE, "bytes_a_second": speeds, "weight_bytes": weights}
    facts |= {"precision": place.precision} | {each: where[each] for each in ("processor", "threads", "commit")}
    return {"decode_vs_transformers": last["times_as_fast"]["tenth"]["median"], "shapes": shapes, **facts}


def sparse_measured(name: str, tokens: int, prefills: Sequence[int], layers: int, rounds: int) -> dict[str, Any]:
    """Measure attention over a text of so many tokens, and prefills of a random model; the ratios are of the first sparse way."""
    model, tokenizer = load_model(name)
    first = next(iter(sparse_prompts.SPARSE))
    own = sparse_prompts.attention(model, tokenizer(sparse_prompts.pages())["input_ids"][:tokens], rounds)
    read = sparse_prompts.prefill(model.config, prefills, layers, own[first]["density"], rounds)
    ratios = {f"sparse_attention_{tokens // 1024}k": own["times_as_fast"][first]["median"]}
    ratios |= {f"sparse_prefill_{row['length'] // 1024}k": row["times_as_fast"]["median"] for row in read[-1:]}
    where = environment()
    facts = {"model": name, "rounds": rounds} | {each: where[each] for each in ("processor", "threads", "commit")}
    return ratios | {"sparse": {"attention": own, "prefill": read} | facts}


def bytes_a_second(numbers: torch.Tensor, rounds: int = 7) -> float:
    """Measure how fast numbers are summed: the median."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        numbers.sum()
        seconds.append(time.perf_counter() - start)
    return numbers.nbytes / median(seconds[1:])


def _read_bytes(model: Any, policy: CachePolicy | None, length: int) -> float:
    """Return the bytes of keys and values that a row's token reads."""
    layers, heads, width = _shape(model)
    return layers * heads * width * 2 * next(model.parameters()).itemsize * length * ((policy and policy.keep_ratio) or 1)


def _shape(model: Any) -> tuple[int, int, int]:
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, config.num_key_value_heads, width


def _step_seconds(model: Any, forward: Forward | None, policy: CachePolicy | None, rows: int, length: int, steps: int, turn: int) -> float:
    """Measure the median of some steps after one that is not counted."""
    attachment = Attachment.to(model, policy) if policy else None
    cache = _filled(model, attachment, rows, length, torch.Generator().manual_seed(turn))
    tokens_B, seconds = torch.zeros(rows, dtype=torch.long), []
    copied = CopiedContext(model, cache, torch.ones(rows, length, dtype=torch.long))
    context = PolicyContext(attachment, copied, Peak(), forward) if attachment else None
    for _ in range(steps + 1):
        start = time.perf_counter()
        if context:
            context.next_logits(tokens_B)
        else:
            model(tokens_B[:, None], past_key_values=cache)
        seconds.append(time.perf_counter() - start)
    del cache, copied, context
    gc.collect()
    return median(seconds[1:])


def _filled(model: Any, attachment: Attachment | None, rows: int, length: int, draw: torch.Generator) -> Cache:
    """Return a cache of random keys and values: under eviction as many as are kept."""
    _, heads, width = _shape(model)
    cache = DynamicCache(config=model.config)
    if attachment:
        attachment.adopt(cache)
    held = attachment.policy.budget(length, 0, 1) if attachment else length
    layers: list[Any] = cache.layers
    for layer in layers:
        states = [torch.randn(rows, heads, held, width, generator=draw).to(model.dtype) for _ in range(2)]
        if attachment:
            layer.take(states[0], states[1], None)
            layer.width, layer.seen_B = length, np.full(rows, length, dtype=np.int64)
        else:
            layer.update(*states)
    return cache


def table(found: Mapping[str, Any]) -> str:
    """Write the tables of the parts that were measured."""
    parts = {
        "shapes": lambda: _steps(found),
        "sparse": lambda: sparse_prompts.table(found["sparse"]),
        "generation": lambda: generation.table(found["generation"], found["generation_layers"]),
    }
    return "\n".join(told() for name, told in parts.items() if name in found)


def _steps(found: Mapping[str, Any]) -> str:
    head = [
        "rows",
        "tokens",
        "way",
        "ms a step",
        "times as fast as transformers",
        "lowest",
        "highest",
        "of the limit",
        "of that of huge pages",
    ]
    lines = []
    for shape in found["shapes"]:
        for way, ratio in shape["times_as_fast"].items():
            cells = [str(shape["rows"]), f"{shape['length']:,}", way, f"{1000 * shape['seconds'][way]['median']:.0f}"]
            cells += [f"{ratio[end]:.2f}" for end in ("median", "low", "high")]
            lines.append([*cells, *(f"{shape[limit][way]:.0%}" for limit in ONES)])
    speed = " and ".join(f"{found['bytes_a_second'][limit] / 1e9:.1f}" for limit in ONES) + " GB/s"
    where = f"{found['processor']}, {found['threads']} threads."
    below = f"{found['rounds']} rounds of {found['steps']} steps, {found['precision']}, {speed}; {where}"
    return markdown(head, lines, f"decode_vs_transformers {found['decode_vs_transformers']:.2f}. {below}")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Draw seconds a step against the length, a panel for each number of rows; nothing where no steps were measured."""
    if "shapes" not in found:
        return
    rows = list(dict.fromkeys(shape["rows"] for shape in found["shapes"]))
    figure = Figure(figsize=(3.6 * len(rows), 3), layout="constrained")
    for axes, count in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        own = [shape for shape in found["shapes"] if shape["rows"] == count]
        for way, colour in zip(WAYS, COLOURS, strict=True):
            axes.plot(
                [shape["length"] for shape in own], [1000 * shape["seconds"][way]["median"] for shape in own], "o-", color=colour, label=way
            )
        axes.set_title(f"{count} row{'s' * (count > 1)}", loc="left", fontsize=10)
        axes.set_xlabel("tokens of context")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    figure.axes[0].set_ylabel("ms a step")
    figure.axes[0].legend(frameon=False, fontsize=8)
    save(figure, path)


ARGUMENTS = {
    "model": Argument("smollm2-135m"),
    "parts": Argument(list(PARTS), choices=PARTS),
    "rows": Argument([1, 8]),
    "lengths": Argument([1024, 2048, 4096, 8192]),
    "steps": Argument(6),
    "rounds": Argument(3),
    "prefills": Argument([1024, 2048, 4096, 8192, 16384, 32768]),
    "layers": Argument(4, "of the random model of prefills and generation"),
    "generated": Argument([1024, 2048, 4096, 8192, 16384]),
}
BENCHMARK = Benchmark("long_context", __doc__, ARGUMENTS, found_of, table, draw)

if __name__ == "__main__":
    BENCHMARK.main()
