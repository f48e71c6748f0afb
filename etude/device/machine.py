"""Where numbers are computed: the device, the precision of matrix products, and an engine there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from etude.device.machine_settings import Machine
from etude.device.processor import best_device, has_bfloat16
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.kernels.decoding import kernels_for
from etude.kv_cache.settings import EngineView
from etude.models.load import describe_weights, max_positions


@dataclass(frozen=True)
class Place:
    """A device and a precision, decided."""

    device: str
    precision: str
    """`float32` or `bfloat16`."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def decide(machine: Machine, before: Mapping[str, Any] | None = None) -> Place:
    """What `auto` means here; `before` holds the `device` and `precision` decided earlier, which a resumed run goes on with."""
    before = before or {}
    device = (before.get("device") or best_device()) if machine.device == "auto" else machine.device
    if device.startswith("mps"):
        raise UserError(f"machine.device {device!r} can't be used: random numbers are drawn in float64, which MPS lacks; use cpu or cuda")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"machine.device {device!r} can't be used here: {said}; choose auto, cpu, cuda, or one such as cuda:1") from error
    precision = before.get("precision") or machine.precision
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    return Place(device, precision)


def threads_of(machine: Machine, before: Mapping[str, Any] | None = None) -> int:
    """The number of threads that numbers are computed by; `before` holds the `threads` that a resumed run began with."""
    return machine.threads or (before or {}).get("threads") or torch.get_num_threads()


def facts_of(place: Place, model: str) -> dict[str, Any]:
    """What a run's environment says of how it computes, beside what it says of the machine: `model` is the name of the weights."""
    kernels = kernels_for(torch.device(place.device), place.dtype) is not None
    return {"precision": place.precision, "device": place.device, "kernels": kernels, "weights": describe_weights(model)}


def engine_at(place: Place, model: Any, tokenizer: Any, machine: Machine, view: EngineView | None = None) -> TransformersEngine:
    seen = view.of_engine(tokenizer) if view else None
    return TransformersEngine(model, tokenizer, dtype=place.dtype, batch_tokens=machine.decode_batch_tokens, view=seen)


def room_tokens(model: Any, max_new_tokens: int) -> int:
    """How long a prompt may be, so that `max_new_tokens` more fit into the model's positions."""
    positions = max_positions(model)
    if max_new_tokens >= positions:
        raise UserError(f"max_new_tokens {max_new_tokens} leaves no room for a prompt: the model has {positions} positions")
    return positions - max_new_tokens
