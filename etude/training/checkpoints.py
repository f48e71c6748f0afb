"""A checkpoint: a plain Hugging Face folder with the state to resume training.

learner.safetensors   the optimizer's tensors (`optimizer.KEY`), the adapters if the model has them (`adapters.KEY`), and all other state
                      under its name (`NAME.KEY`); no pickle
progress.json         written last, with the checksums of all other files: a folder without it is not a checkpoint

Loading compares the checksums and needs every weight of the model: a flipped bit, a lost file or the weights of another run end in one
sentence. A checkpoint of an older version has no checksums.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from etude.errors import UserError
from etude.fingerprints import difference
from etude.models.adapters import base_of, has_adapters
from etude.renamed import renamed_tensor
from etude.training.run_folder import RunFolder, damaged, read_progress


class Stateful(Protocol):
    """An object whose state checkpoints hold."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return its state."""

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state from `state_dict`."""


def save_checkpoint(
    folder: RunFolder,
    name: str,
    model: Any,
    state: Mapping[str, Stateful],
    progress: Mapping[str, Any],
    *,
    save: Callable[[Path], object],
    keep: int = 1,
    spare: str | None = None,
) -> None:
    """Write the checkpoint to a temporary folder, then rename it.

    `save` writes the model into a folder. `state` has the other stateful objects by name. `spare` is an older checkpoint to keep
    besides the last `keep`.
    """
    partial = folder.path / "checkpoints" / f"{name}.writing"
    save(partial)
    save_file(tensors_of(model, state), partial / "learner.safetensors")
    folder.commit_checkpoint(partial, name, progress, keep=keep, spare=spare)


def tensors_of(model: Any, state: Mapping[str, Stateful]) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint holds besides the weights, by name."""
    tensors = {f"{name}.{key}": value for name, part in state.items() for key, value in part.state_dict().items()}
    tensors |= {f"adapters.{key}": value.detach() for key, value in _adapters(model).items()}
    return {key: value.contiguous() for key, value in tensors.items()}


def load_checkpoint(path: Path, model: Any, state: Mapping[str, Stateful] | None = None) -> dict[str, Any]:
    """Load a checkpoint's weights, adapters and other `state`, and return its progress.

    Raises UserError if it is damaged: a file differs from the one written, or a weight is missing.
    """
    progress = read_progress(path)
    try:
        if (found := difference(path, progress.get("sha256", {}))) and "sha256" in progress:
            raise ValueError(found)
        tensors = _named(load_file(path / "learner.safetensors"))
        if adapters := _adapters(model):
            _load(model, tensors.get("adapters", {}), adapters)
        else:
            files = sorted(path.glob("model*.safetensors")) or [path / "model.safetensors"]
            weights = {name: value for file in files for name, value in load_file(file).items()}
            own = model.state_dict()
            _load(model, weights if weights.keys() <= own.keys() else _renamed(path, model), own)
        for name, part in (state or {}).items():
            part.load_state_dict(tensors.get(name, {}))
    except (SafetensorError, FileNotFoundError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, error) from error
    return progress


def _named(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Group tensors by the name of their owner; older versions used a letter."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for full, value in tensors.items():
        owner, key = renamed_tensor(full)
        found.setdefault(owner, {})[key] = value
    return found


def _adapters(model: Any) -> dict[str, torch.Tensor]:
    if not has_adapters(model):
        return {}
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _renamed(path: Path, model: Any) -> Mapping[str, torch.Tensor]:
    """Return the weights under their names in memory: transformers saves the fused experts of a mixture one by one."""
    found, told = base_of(model).from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    if told["missing_keys"]:
        raise ValueError(f"the weight {min(told['missing_keys'])} is missing")
    return found.state_dict()


@torch.no_grad()
def _load(model: Any, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into the model in place, since the optimizer and the engine refer to its parameters. Raises ValueError if an `expected`
    weight is missing and no given one shares its memory.
    """
    own = model.state_dict()
    for name, value in tensors.items():
        if name not in own:
            raise UserError(f"the checkpoint has a weight {name!r} that the model lacks: resume with the model that it was made from")
        own[name].copy_(value)
    copied = {own[name].data_ptr() for name in tensors}
    lacking = [name for name, value in expected.items() if value.numel() and value.data_ptr() not in copied]
    if lacking:
        raise ValueError(f"the weight {lacking[0]} is missing")
