"""What it saves to read a prompt sparsely, a part of `bench.long_context`.

Attention alone: queries, keys and values that the model computes over this project's own pages, every layer's by turns through torch's
dense attention and through each way to be sparse, choosing of blocks included. Beside it what the sparse ways miss of dense attention, in
every fifth layer, and what the model that reads so says: KL(dense || sparse) of the next token over the text's second half, and how often
the text's own next token is the likeliest, for both.

A whole prefill: a model of random weights in the same shape, of fewer layers, over random tokens. Its attention is flat, so that a
threshold would read nearly all; it is given the threshold at which it reads about the share of the blocks that the first sparse way read of
the pages.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM

from etude.evaluation.long.sparse_error import SparseError, sparse_error
from etude.kv_cache.attach import attach
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.sparse_prefill import Density, SparsePrefill
from experiments.turns import spread

ROOT = Path(__file__).parents[2]
SPARSE = {
    "antidiagonal_0.9": SparsePrefill("antidiagonal", 0.9),
    "antidiagonal_0.95": SparsePrefill("antidiagonal", 0.95),
    "antidiagonal_0.8": SparsePrefill("antidiagonal", 0.8),
    "vertical_slash_0.9": SparsePrefill("vertical_slash", 0.9),
}
COMPARED = 5
"""Layers from one that is compared with dense attention to the next: all of its weights are computed for that."""
PART = 1024
"""Positions whose logits are there at a time."""


def pages() -> str:
    """Return English text of the project, the same for the same commit."""
    return "\n\n".join(
        path.read_text(encoding="utf8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "LOG.md")
    )


@torch.inference_mode()
def attention(model: Any, tokens: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure seconds of dense and sparse attention over all layers, what is missed, and what the model then predicts."""
    states = _states(model, tokens)
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], object]] = {"dense": _dense}
    ways |= {name: _sparsely(how) for name, how in SPARSE.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):  # the first warms up
        for name in sorted(ways, key=lambda name: (turn, name), reverse=turn % 2 == 1):
            start = time.perf_counter()
            for queries_NTD, keys_HTD, values_HTD, scale in states if turn else states[:1]:
                ways[name](queries_NTD, keys_HTD, values_HTD, scale)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    found: dict[str, Any] = {"tokens": len(tokens), "seconds": {name: spread(own) for name, own in seconds.items()}}
    found["times_as_fast"] = {
        name: spread([dense / mine for dense, mine in zip(seconds["dense"], own, strict=True)]) for name, own in seconds.items()
    }
    dense_logits = _logits(model, tokens, None)
    for name, how in SPARSE.items():
        own = [
            sparse_error(how, queries_RTD, keys_TD, values_TD, scale)
            for queries_NTD, keys_HTD, values_HTD, scale in states[::COMPARED]
            for queries_RTD, keys_TD, values_TD in zip(queries_NTD.unflatten(0, (len(keys_HTD), -1)), keys_HTD, values_HTD, strict=True)
        ]
        found[name] = asdict(SparseError.mean(own)) | _said(dense_logits, _logits(model, tokens, how), tokens)
    return found


def _dense(queries_NTD: torch.Tensor, keys_HTD: torch.Tensor, values_HTD: torch.Tensor, scale: float) -> torch.Tensor:
    shared = len(queries_NTD) // len(keys_HTD)
    keys, values = (states[None].repeat_interleave(shared, 1) for states in (keys_HTD, values_HTD))
    return scaled_dot_product_attention(queries_NTD[None], keys, values, is_causal=True, scale=scale)


def _sparsely(how: SparsePrefill) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], object]:
    def read(queries_NTD: torch.Tensor, keys_HTD: torch.Tensor, values_HTD: torch.Tensor, scale: float) -> list[torch.Tensor]:
        heads = zip(queries_NTD.unflatten(0, (len(keys_HTD), -1)), keys_HTD, values_HTD, strict=True)
        return [how.causal(queries_RTD, keys_TD, values_TD, scale) for queries_RTD, keys_TD, values_TD in heads]

    return read


def _states(model: Any, tokens: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]]:
    """Record the input of every layer's attention: queries, keys, values and their scale."""
    found = []

    def record(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[torch.Tensor, None]:
        found.append((query[0], key[0], value[0], scaling))
        return _dense(query[0], key[0], value[0], scaling).transpose(1, 2), None

    own = model.config._attn_implementation
    AttentionInterface.register("bench_recorded", record)
    model.set_attn_implementation("bench_recorded")
    try:
        model(torch.tensor([list(tokens)]), logits_to_keep=1, use_cache=False)
    finally:
        model.set_attn_implementation(own)
        AttentionInterface._global_mapping.pop("bench_recorded", None)  # which holds all that was recorded
    return found


def _logits(model: Any, tokens: Sequence[int], how: SparsePrefill | None) -> torch.Tensor:
    """Return the logits [T / 2, V] over the second half of the text, read in one piece."""
    keep = len(tokens) // 2
    with _reading(model, how):
        logits: torch.Tensor = model(torch.tensor([list(tokens)]), logits_to_keep=keep).logits[0]
    return logits


@contextmanager
def _reading(model: Any, how: SparsePrefill | None) -> Iterator[None]:
    """Let the model keep all of its cache and read sparsely, or leave it to transformers alone."""
    if how is None:
        yield
        return
    with attach(model, EvictionPolicy(StreamingLLM(), sparse=replace(how, density=Density()))):
        yield


def _said(dense_TV: torch.Tensor, sparse_TV: torch.Tensor, tokens: Sequence[int]) -> dict[str, float]:
    next_T = torch.tensor([*tokens[-len(dense_TV) + 1 :]])
    divergences, agree, right = [], [], {"dense": 0, "sparse": 0}
    for start in range(0, len(next_T), PART):
        own = slice(start, min(start + PART, len(next_T)))
        dense, sparse = dense_TV[own].float().log_softmax(-1), sparse_TV[own].float().log_softmax(-1)
        divergences += (dense.exp() * (dense - sparse)).sum(-1).tolist()
        agree += (dense.argmax(-1) == sparse.argmax(-1)).tolist()
        for name, logprobs in (("dense", dense), ("sparse", sparse)):
            right[name] += int((logprobs.argmax(-1) == next_T[own]).sum())
    shares = {f"{name}_right": count / len(next_T) for name, count in right.items()}
    return {"kl": fmean(divergences), "same_first": fmean(agree), **shares}


def random_model(config: Any, layers: int, positions: int) -> Any:
    """Return a random model of the same shape, with so many layers and positions."""
    changed = {"num_hidden_layers": layers, "max_position_embeddings": positions + 1}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(type(config).from_dict(config.to_dict() | changed)).eval()


@torch.inference_mode()
def prefill(config: Any, lengths: Sequence[int], layers: int, density: float, rounds: int) -> list[dict[str, Any]]:
    """Measure the seconds of a whole prefill at each length, dense by transformers and sparse, and their ratio."""
    model, found = random_model(config, layers, max(lengths)), []
    for length in lengths:
        tokens = torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(length))
        seconds: dict[str, list[float]] = {"dense": [], "sparse": []}
        how = replace(next(iter(SPARSE.values())), threshold=density, density=Density(), from_tokens=0)
        for _ in range(rounds):
            for name, own in (("dense", None), ("sparse", how)):
                with attach(model, EvictionPolicy(StreamingLLM(), sparse=own)) if own else _reading(model, None):
                    start = time.perf_counter()
                    model(tokens, logits_to_keep=1)
                    seconds[name].append(time.perf_counter() - start)
        ratio = spread([dense / sparse for dense, sparse in zip(seconds["dense"], seconds["sparse"], strict=True)])
        spreads = {name: spread(own) for name, own in seconds.items()}
        found.append({"length": length, "layers": layers, "seconds": spreads, "times_as_fast": ratio, "density": how.density.share})
    return found


def table(found: Mapping[str, Any]) -> str:
    """Write the table of attention, then that of prefill."""
    own = found["attention"]
    head = "| attention | s | times as fast | lowest | highest | blocks read | of attention | of the best blocks | error | KL | right |"
    lines = [head, "|---" * 11 + "|"]
    for name, ratio in own["times_as_fast"].items():
        if name in own:
            shares = [f"{own[name][part]:.1%}" for part in ("density", "mass", "recall")]
            missed = [*shares, f"{own[name]['error']:.3f}", f"{own[name]['kl']:.4f}", f"{own[name]['sparse_right']:.1%}"]
        else:
            missed = [""] * 5 + [f"{own[next(iter(SPARSE))]['dense_right']:.1%}"]
        cells = [name.replace("_", " "), f"{own['seconds'][name]['median']:.1f}", *_ends(ratio), *missed]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"{own['tokens']:,} tokens of this project's pages, all layers.", ""]
    lines += ["| prefill of | dense, s | sparse, s | times as fast | lowest | highest | blocks read |", "|---" * 7 + "|"]
    for row in found["prefill"]:
        seconds = [f"{row['seconds'][name]['median']:.1f}" for name in ("dense", "sparse")]
        lines.append(f"| {row['length']:,} | {' | '.join([*seconds, *_ends(row['times_as_fast'])])} | {row['density']:.1%} |")
    where = f"{found['rounds']} rounds, float32; {found['processor']}, {found['threads']} threads"
    return "\n".join([*lines, "", f"Random weights, {found['prefill'][0]['layers']} layers. {where}.", ""])


def _ends(ratio: Mapping[str, float]) -> list[str]:
    return [f"{ratio[end]:.2f}" for end in ("median", "low", "high")]
