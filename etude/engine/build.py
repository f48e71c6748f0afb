"""The default engine, built for a device."""

from typing import Any

from etude.device.machine import Device, Machine
from etude.engine.continuous import ContinuousBatch
from etude.engine.protocols import PrefixEngine, View
from etude.engine.transformers import TransformersEngine


def engine_at(device: Device, model: Any, tokenizer: Any, machine: Machine, view: View | None = None) -> PrefixEngine:
    """Build an engine that samples from `model` on a device, in its precision. `view`: its default view; None: the full cache."""
    return TransformersEngine(model, tokenizer, dtype=device.dtype, batch_tokens=machine.kv_cache_tokens, view=view)


def continuous_batch(engine: PrefixEngine, *, most_rows: int, most_new_tokens: int) -> ContinuousBatch | None:
    """Return an empty batch of an engine that requests join and leave at any token; None if it has none."""
    return engine.continuous(most_rows=most_rows, most_new_tokens=most_new_tokens) if isinstance(engine, TransformersEngine) else None
