"""A checkpoint: a plain Hugging Face folder, and beside the weights what it takes to go on training.

learner.safetensors   the optimizer's tensors (`optimizer.KEY`), the adapters where the model has them (`adapters.KEY`), and what else has
                      a state, each by its name (`NAME.KEY`); no pickle
progress.json         written last, with the checksums of all other files: a folder without it is not a checkpoint

What is read has the checksums of what was written, and every weight of the model is in it: a flipped bit, a lost file or the weights of
another run end in one sentence. A checkpoint of an older version has no checksums.
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
    """What learns and has to be carried over a kill."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return all of it."""

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state_dict` gave."""


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
    """Write the checkpoint beside its place and move it there by one rename.

    `save` writes the model into a folder, `state` is what else learns, by name, and `spare` an older checkpoint that stays beside the
    `keep` last ones.
    """
    partial = folder.path / "checkpoints" / f"{name}.writing"
    save(partial)
    save_file(tensors_of(model, state), partial / "learner.safetensors")
    folder.commit_checkpoint(partial, name, progress, keep=keep, spare=spare)


def tensors_of(model: Any, state: Mapping[str, Stateful]) -> dict[str, torch.Tensor]:
    """Return what a checkpoint holds beside the weights, by name."""
    tensors = {f"{name}.{key}": value for name, part in state.items() for key, value in part.state_dict().items()}
    tensors |= {f"adapters.{key}": value.detach() for key, value in _adapters(model).items()}
    return {key: value.contiguous() for key, value in tensors.items()}


def load_checkpoint(path: Path, model: Any, state: Mapping[str, Stateful] | None = None) -> dict[str, Any]:
    """Load a checkpoint's weights, adapters and the `state` of what else learned; returns its progress.

    Raises UserError where it is damaged: one file is not what was written, or lacks a weight.
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
    """Return tensors by the name of their owner; those of older versions have its letter."""
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
    """Return the weights under the names that they have in memory: transformers saves the fused experts of a mixture one by one."""
    found, told = base_of(model).from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    if told["missing_keys"]:
        raise ValueError(f"the weight {min(told['missing_keys'])} is missing")
    return found.state_dict()


@torch.no_grad()
def _load(model: Any, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into the model in place (the optimizer and the engine hold on to its parameters). Raises ValueError where one of the
    `expected` weights is not among them, nor another that shares its memory.
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
