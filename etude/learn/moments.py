"""What an optimizer remembers, as tensors of a checkpoint."""

from collections.abc import Mapping, Sequence

import torch


def moments_of(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """By the parameter's place and the name that the optimizer has for it."""
    return {f"{index}.{name}": value for index, own in enumerate(parameters) for name, value in optimizer.state.get(own, {}).items()}


def load_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Take over what `moments_of` gave, and forget what was before."""
    optimizer.state.clear()
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        own = parameters[int(index)]
        optimizer.state[own][name] = value.to(own.device, copy=True)  # the step count too: fused AdamW reads it there
