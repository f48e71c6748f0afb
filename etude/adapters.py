"""LoRA adapters through peft, and the plain weights that a model with adapters stands for.

Identity: a fresh adapter (B = 0) and a disabled one are the base model.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters on the linear layers (Hu et al. 2021, arXiv 2106.09685); the head and the embeddings stay as they are."""

    rank: int = 0
    """0 trains all weights; otherwise the rank of the adapters."""
    alpha: float | None = None
    """Scale numerator, twice the rank unless given."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora.rank must be 0 (all weights) or more, got {self.rank}")
        if self.alpha is not None and self.rank == 0:
            raise UserError(f"lora.alpha is {self.alpha} but lora.rank is 0, so it has no effect: set lora.rank")


def add_lora(model: Any, lora: LoRA, seed: int) -> Any:
    """The model with trainable adapters (base weights frozen), or the model itself where the rank is 0."""
    if lora.rank == 0:
        return model
    import torch
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        alpha = lora.alpha if lora.alpha is not None else 2 * lora.rank
        config = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")  # type: ignore[arg-type]
        return get_peft_model(model, config)  # peft's annotation says int; its scaling divides any number


def adapters_off(model: Any) -> AbstractContextManager[Any]:
    """A context in which a model with adapters is its base model."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


def base_of(model: Any) -> Any:
    """The plain model inside one with adapters, or the model itself."""
    return model.get_base_model() if has_adapters(model) else model


def has_adapters(model: Any) -> bool:
    return hasattr(model, "get_base_model")


def merged_weights(model: Any) -> "dict[str, torch.Tensor]":
    """The state dict of the plain model that `model` stands for; weights with adapters are new tensors, the rest are the model's own."""
    if not has_adapters(model):
        return model.state_dict()
    import torch

    base = model.get_base_model()
    weights = {name.replace(".base_layer.", "."): value for name, value in base.state_dict().items() if ".lora_" not in name}
    with torch.no_grad():
        for name, module in base.named_modules():
            if hasattr(module, "get_delta_weight"):
                delta = sum(module.get_delta_weight(adapter) for adapter in module.active_adapters)
                weights[f"{name}.weight"] = module.base_layer.weight + delta
    return weights
