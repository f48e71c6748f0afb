"""The state of an optimizer as tensors of a checkpoint."""

from collections.abc import Mapping, Sequence

import torch


def moments_of(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors, keyed by the parameter's index and the optimizer's name."""
    return {f"{index}.{name}": value for index, own in enumerate(parameters) for name, value in optimizer.state.get(own, {}).items()}


def load_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Replace the optimizer's state with that of `moments_of`."""
    optimizer.state.clear()
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        own = parameters[int(index)]
        optimizer.state[own][name] = value.to(own.device, copy=True)  # includes the step count, which fused AdamW reads there
