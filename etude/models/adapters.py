"""Adds LoRA adapters through peft, and computes the merged weights.

Identity: a model with a fresh adapter (B = 0) or a disabled one equals the base model.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from etude.errors import unknown
from etude.models.lora_settings import LoRA


def add_lora(model: Any, lora: LoRA, seed: int) -> Any:
    """Add trainable LoRA adapters to a model and freeze its base weights; returns the model itself if the rank is 0.

    Raises UserError for target modules that the model lacks.
    """
    if lora.rank == 0:
        return model
    from peft import LoraConfig, get_peft_model

    check_targets(model, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        alpha = lora.alpha if lora.alpha is not None else 2 * lora.rank
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # peft's annotation says int; its scaling divides any number
            target_modules=lora.target_modules or "all-linear",
            lora_dropout=lora.dropout,
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses an older name of transformers
            return get_peft_model(model, config).eval()  # dropout is only for updates


def check_targets(model: Any, lora: LoRA) -> None:
    """Raise UserError if `lora.target_modules` names a layer that the model lacks, or its LM head."""
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if _is_linear(module) and module is not head]
    for target in lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise unknown("linear layer in lora.target_modules", target, {name.rpartition(".")[2] for name in linear})


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's


@contextmanager
def adapter_dropout(model: Any, seed: int) -> Iterator[None]:
    """Apply adapter dropout within the context, with random numbers only from `seed`; the global random state is unchanged."""
    dropouts = [module for name, module in model.named_modules() if ".lora_dropout." in name] if has_adapters(model) else []
    dropouts = [module for module in dropouts if getattr(module, "p", 0.0)]
    if not dropouts:
        yield
        return
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed % 2**63)
        for module in dropouts:
            module.train()
        try:
            yield
        finally:
            for module in dropouts:
                module.eval()


def disable_adapters(model: Any) -> AbstractContextManager[Any]:
    """Return a context in which a model with adapters acts as its base model."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def base_of(model: Any) -> Any:
    """Return the plain model inside one with adapters, or the model itself."""
    return model.get_base_model() if has_adapters(model) else model


def has_adapters(model: Any) -> bool:
    """Tell whether a model has adapters."""
    return hasattr(model, "get_base_model")


def base_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the state dict of a model's base weights without the adapters; the tensors are the model's own."""
    base = base_of(model)
    return {name.replace(".base_layer.", "."): value for name, value in base.state_dict().items() if ".lora_" not in name}


@torch.no_grad()
def merged_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the state dict with adapters merged; weights with adapters are new tensors, the rest are the model's own."""
    if not has_adapters(model):
        return model.state_dict()
    weights = base_weights(model)
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
            weights[f"{name}.weight"] = module.base_layer.weight + delta
    return weights
