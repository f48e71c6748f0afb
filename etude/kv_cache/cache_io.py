"""Save and load a compressed KV cache, so that a context is computed once and used many times, also by another process.

The safetensors file holds keys, values and positions of every layer's segments one after another, the number of tokens of each row and
head, and the inputs of the policy's score. Only caches whose layers all evict can be saved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.cache_utils import Cache, DynamicCache

from etude.errors import UserError
from etude.kv_cache.attachment import Attachment
from etude.kv_cache.cache_layer import split_layers
from etude.kv_cache.evicting_layer import EvictingCacheLayer
from etude.kv_cache.moments import Moments
from etude.kv_cache.slots import Segment, Slots

_FORMAT = "etude context 1"


def save_cache(cache: Cache, path: Path | str) -> None:
    """Write the kept tokens of a context, by one atomic rename. Raises UserError for an empty cache, or one with other layers."""
    # collect the tensors of each layer
    other = next((type(layer).__name__ for layer in cache.layers if not getattr(layer, "can_be_saved", False)), None)
    if other:
        raise UserError(f"a context with a {other} can't be saved: only those whose layers all drop tokens under a policy can")
    tensors: dict[str, torch.Tensor] = {}
    widths = []
    layers: list[EvictingCacheLayer] = split_layers(cache.layers)[0]
    for number, layer in enumerate(layers):
        if not layer.slots:
            raise UserError("the context is empty: compute a prompt first")
        for name, value in _tensors_of(layer, layer.slots).items():
            tensors[f"{number}.{name}"] = value.contiguous()
        widths.append(layer.width)
    # write the file
    written = Path(path).with_name(Path(path).name + ".partial")
    rerotated = any(layer.policy.rerotate for layer in layers)
    save_file(tensors, written, {"format": _FORMAT, "widths": json.dumps(widths), "rerotated": json.dumps(rerotated)})
    written.replace(path)


def load_cache(path: Path | str, attachment: Attachment) -> Cache:
    """Load a saved cache for the model and policy of a `with attach(...)` block.

    Raises UserError for a file without a cache, or with a cache of another model shape, of another kind of policy, or without the inputs of
    the policy's score.
    """
    # read the file
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the file is no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read as a context: {error}") from None
    if told.get("format") != _FORMAT:
        raise UserError(f"{path} holds no context that was saved by save_cache")
    # compare it with the model and the policy
    cache = DynamicCache(config=attachment.config)
    widths = json.loads(told["widths"])
    if len(widths) != len(cache.layers):
        raise UserError(f"{path} holds a context of {len(widths)} layers, but this model has {len(cache.layers)}")
    rerotates = attachment.policy.rerotate
    if json.loads(told.get("rerotated", "false")) != rerotates:
        raise UserError(
            f"{path} holds keys at positions {'of the text' if rerotates else 'within what is kept'}, which this policy does not count by: "
            f"set rerotate to {not rerotates}"
        )
    attachment.adopt(cache)
    config = attachment.config.get_text_config()
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    held = tensors["0.count"].shape[1], tensors["0.keys"].shape[1]
    if held != (config.num_key_value_heads, head_width):
        raise UserError(
            f"{path} holds a context of {held[0]} heads of width {held[1]}, but this model has {config.num_key_value_heads} of {head_width}"
        )
    # fill the layers
    for number, (layer, width) in enumerate(zip(split_layers(cache.layers)[0], widths, strict=True)):
        if not layer.can_be_saved:
            raise UserError("a context that was saved needs a policy that drops tokens, as the one had under which it was made")
        own = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(number)}
        _fill(layer, own, width, attachment.device)
    return cache


def _tensors_of(layer: EvictingCacheLayer, slots: Slots) -> dict[str, torch.Tensor]:
    segments = [segment for row in range(slots.rows) for segment in slots.row(row)]
    names = ("keys", "values", "position", "mass")
    found = {name: torch.cat(parts) for name, parts in zip(names, zip(*(each.parts() for each in segments), strict=True), strict=True)}
    found |= {"count": torch.from_numpy(slots.count_BH), "seen": torch.from_numpy(layer.seen_B)}
    found["fresh"] = torch.tensor([layer.fresh_tokens, layer.policy.score.sums_attention])
    memory = layer.memory
    if memory.queries_BNWD is not None:
        found |= {"queries": memory.queries_BNWD, "remembered": torch.from_numpy(memory.remembered_B)}
    if memory.moments_B:
        found["moments.count"] = torch.tensor([each.count for each in memory.moments_B])
        found["moments.sum"] = torch.stack([each.sum_ND for each in memory.moments_B])
        found["moments.squares"] = torch.stack([each.squares_NDD for each in memory.moments_B])
    return found


def _fill(layer: EvictingCacheLayer, own: Mapping[str, Any], width: int, device: torch.device) -> None:
    count_BH: np.ndarray = own["count"].numpy()
    cuts = count_BH.ravel().tolist()
    parts = (own[name].to(device).split(cuts) for name in ("keys", "values", "position", "mass"))
    segments = [Segment(*each) for each in zip(*parts, strict=True)]
    rows, heads = count_BH.shape
    layer.slots = layer.in_slots([segments[row * heads : (row + 1) * heads] for row in range(rows)])
    layer.seen_B, layer.width, layer.is_initialized = own["seen"].numpy().copy(), width, True
    score, (layer.fresh_tokens, sums_attention) = layer.policy.score, own["fresh"].tolist()
    if score.sums_attention and not sums_attention:
        raise UserError("the context was saved without the sums that this policy goes by: load it under the policy that it was made with")
    if score.window:
        if "queries" not in own or own["queries"].shape[2] != score.window:
            raise UserError(
                "the context was saved without the queries that this policy goes by: load it under the policy that it was made with"
            )
        layer.memory.queries_BNWD, layer.memory.remembered_B = own["queries"].to(device), own["remembered"].numpy().copy()
    if score.moments_from is not None:
        if "moments.count" not in own:
            raise UserError(
                "the context was saved without the moments that this policy goes by: load it under the policy that it was made with"
            )
        sums = (own[f"moments.{name}"].to(device) for name in ("sum", "squares"))
        layer.memory.moments_B = [Moments(int(count), *each) for count, *each in zip(own["moments.count"], *sums, strict=True)]
