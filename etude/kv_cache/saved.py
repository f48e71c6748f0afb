"""A compressed context in a file: read once, asked many times, also by another process.

safetensors: keys, values and places of every layer's segments one behind another, how many each row and head has, and what the policy's
score goes by. Only caches whose layers are all under a policy can be saved.
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
from etude.kv_cache.attach import Attachment
from etude.kv_cache.moments import Moments
from etude.kv_cache.policy import Policy
from etude.kv_cache.slot_layer import SlotLayer
from etude.kv_cache.slots import Segment, Slots

_FORMAT = "etude context 1"


def save_context(cache: Cache, path: Path | str) -> None:
    """Write what is kept of a context. Raises UserError for a cache that has other layers too."""
    other = next((type(layer).__name__ for layer in cache.layers if not isinstance(layer, SlotLayer)), None)
    if other:
        raise UserError(f"a context with a {other} can't be saved: only those whose layers all drop tokens under a policy can")
    tensors: dict[str, torch.Tensor] = {}
    widths = []
    for number, layer in enumerate(cache.layers):
        assert isinstance(layer, SlotLayer)
        if not layer.slots:
            raise UserError("the context is empty: compute a prompt first")
        for name, value in _tensors_of(layer, layer.slots).items():
            tensors[f"{number}.{name}"] = value.contiguous()
        widths.append(layer.width)
    written = Path(path).with_name(Path(path).name + ".partial")
    rerotated = any(isinstance(layer, SlotLayer) and layer.policy.rerotate for layer in cache.layers)
    save_file(tensors, written, {"format": _FORMAT, "widths": json.dumps(widths), "rerotated": json.dumps(rerotated)})
    written.replace(path)


def load_context(path: Path | str, attachment: Attachment) -> Cache:
    """The context as it was saved, for the model and policy of a `with attach(...)` block. Raises UserError for a file that holds none, or
    one of a model of another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # the file is no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} can't be read as a context: {error}") from None
    if told.get("format") != _FORMAT:
        raise UserError(f"{path} holds no context that was saved by save_context")
    cache = DynamicCache(config=attachment.config)
    widths = json.loads(told["widths"])
    if len(widths) != len(cache.layers):
        raise UserError(f"{path} holds a context of {len(widths)} layers, but this model has {len(cache.layers)}")
    rerotates = isinstance(attachment.policy, Policy) and attachment.policy.rerotate
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
    for number, (layer, width) in enumerate(zip(cache.layers, widths, strict=True)):
        if not isinstance(layer, SlotLayer):
            raise UserError("a context that was saved needs a policy that drops tokens, as the one had under which it was made")
        own = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == str(number)}
        _fill(layer, own, width, attachment.device)
    return cache


def _tensors_of(layer: SlotLayer, slots: Slots) -> dict[str, torch.Tensor]:
    segments = [segment for row in range(slots.rows) for segment in slots.row(row)]
    names = ("keys", "values", "position", "mass")
    found = {name: torch.cat(parts) for name, parts in zip(names, zip(*(each.parts() for each in segments), strict=True), strict=True)}
    found |= {"count": torch.from_numpy(slots.count_BH), "seen": torch.from_numpy(layer.seen_B)}
    found["fresh"] = torch.tensor([layer.fresh_tokens, layer.policy.score.sums_attention])
    if layer.queries_BNWD is not None:
        found |= {"queries": layer.queries_BNWD, "remembered": torch.from_numpy(layer.remembered_B)}
    if layer.moments_B:
        found["moments.count"] = torch.tensor([each.count for each in layer.moments_B])
        found["moments.sum"] = torch.stack([each.sum_ND for each in layer.moments_B])
        found["moments.squares"] = torch.stack([each.squares_NDD for each in layer.moments_B])
    return found


def _fill(layer: SlotLayer, own: Mapping[str, Any], width: int, device: torch.device) -> None:
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
        layer.queries_BNWD, layer.remembered_B = own["queries"].to(device), own["remembered"].numpy().copy()
    if score.moments_from is not None:
        if "moments.count" not in own:
            raise UserError(
                "the context was saved without the moments that this policy goes by: load it under the policy that it was made with"
            )
        sums = (own[f"moments.{name}"].to(device) for name in ("sum", "squares"))
        layer.moments_B = [Moments(int(count), *each) for count, *each in zip(own["moments.count"], *sums, strict=True)]
