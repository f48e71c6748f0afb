"""The device that numbers are computed on, and the precision of its matrix products."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from etude.device.machine_settings import Machine
from etude.device.processor import best_device, has_bfloat16
from etude.errors import UserError
from etude.kernels.decoding import kernels_for
from etude.models.load import describe_weights, max_positions


@dataclass(frozen=True)
class Device:
    """A device and a precision, resolved."""

    device: str
    """Torch's name: `cpu`, `cuda`, `cuda:1`."""
    precision: str
    """`float32` or `bfloat16`."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def resolve_device(machine: Machine, before: Mapping[str, Any] | None = None) -> Device:
    """Resolve `auto` to a device and a precision. `before`: the `device` and `precision` that a resumed run began with.

    Raises UserError for a device that can't be used here.
    """
    before = before or {}
    device = (before.get("device") or best_device()) if machine.device == "auto" else machine.device
    if device.startswith("mps"):
        raise UserError(f"machine.device {device!r} can't be used: its random numbers need float64, which MPS lacks; use cpu or cuda")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"machine.device {device!r} can't be used here: {said}; choose auto, cpu, cuda, or one such as cuda:1") from error
    precision = before.get("precision") or machine.dtype
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    return Device(device, precision)


def threads_of(machine: Machine, before: Mapping[str, Any] | None = None) -> int:
    """Return the number of threads to compute with. `before`: the `threads` that a resumed run began with."""
    return machine.threads or (before or {}).get("threads") or torch.get_num_threads()


def device_facts(place: Device, model: str) -> dict[str, Any]:
    """Return what a run's environment records of its device. `model`: the name of the weights."""
    kernels = kernels_for(torch.device(place.device), place.dtype) is not None
    return {"precision": place.precision, "device": place.device, "kernels": kernels, "weights": describe_weights(model)}


def max_prompt_tokens(model: Any, max_new_tokens: int) -> int:
    """Return the most tokens of a prompt after which `max_new_tokens` fit into the model's positions. Raises UserError if none do."""
    positions = max_positions(model)
    if max_new_tokens >= positions:
        raise UserError(f"max_new_tokens {max_new_tokens} leaves no room for a prompt: the model has {positions} positions")
    return positions - max_new_tokens
