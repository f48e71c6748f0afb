"""Checkpoints: a plain Hugging Face folder with the state that training needs beside the weights.

learner.safetensors   optimizer tensors (`o.`), the adapters if the model has them (`a.`), and other state, each with a letter of its own;
                      no pickle
progress.json         written last, with the checksums of all other files: a folder without it is not a checkpoint

Loading checks the checksums and that every weight of the model is there: a flipped bit, a lost file or the weights of another run end in
one sentence. A checkpoint of an older version has no checksums.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from etude.errors import UserError
from etude.learn.learner import Learner
from etude.models.adapters import base_of, has_adapters
from etude.models.save import save_model
from etude.recipes.saving import save_asked
from etude.recipes.settings import PracticeSettings
from etude.training.fingerprints import difference
from etude.training.run_folder import RunFolder, damaged, read_progress


class Stateful(Protocol):
    """A part with state that must survive a kill."""

    def state(self) -> dict[str, torch.Tensor]:
        """Return the whole state."""

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore a state that `state` returned."""


def save_checkpoint(
    folder: RunFolder,
    name: str,
    model: Any,
    tokenizer: Any,
    learner: Learner | None,
    progress: Mapping[str, Any],
    *,
    settings: PracticeSettings | None = None,
    beside: Mapping[str, Stateful] | None = None,
    keep: int = 1,
    spare: str | None = None,
) -> None:
    """Write a checkpoint under another name and rename it.

    `settings` are those of a run that prompts its model, `beside` the other parts with state, by letter, and `spare` an older checkpoint
    that is kept in addition to the `keep` last ones.
    """
    partial = folder.path / "checkpoints" / f"{name}.writing"
    if settings is None:
        save_model(model, tokenizer, partial)
    else:
        save_asked(model, tokenizer, partial, settings)
    save_file(learned(model, learner, beside or {}), partial / "learner.safetensors")
    folder.commit_checkpoint(partial, name, progress, keep=keep, spare=spare)


def learned(model: Any, learner: Learner | None, beside: Mapping[str, Stateful]) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint holds beside the weights, by name: optimizer, adapters, and other state."""
    parts = ({"o": learner} if learner else {}) | dict(beside)
    tensors = {f"{letter}.{key}": value for letter, part in parts.items() for key, value in part.state().items()}
    tensors |= {f"a.{key}": value.detach() for key, value in _adapters(model).items()}
    return {key: value.contiguous() for key, value in tensors.items()}


def load_checkpoint(path: Path, model: Any, learner: Learner | None = None, beside: Mapping[str, Stateful] | None = None) -> dict[str, Any]:
    """Load a checkpoint's weights, adapters, optimizer and other state; return its progress.

    Raises UserError if it is damaged: a file differs from what was written, or lacks a weight.
    """
    progress = read_progress(path)
    try:
        if (found := difference(path, progress.get("sha256", {}))) and "sha256" in progress:
            raise ValueError(found)
        tensors = load_file(path / "learner.safetensors")
        if adapters := _adapters(model):
            _load(model, {key[2:]: value for key, value in tensors.items() if key.startswith("a.")}, adapters)
        else:
            files = sorted(path.glob("model*.safetensors")) or [path / "model.safetensors"]
            weights = {name: value for file in files for name, value in load_file(file).items()}
            own = model.state_dict()
            _load(model, weights if weights.keys() <= own.keys() else _renamed(path, model), own)
        for letter, part in (({"o": learner} if learner else {}) | dict(beside or {})).items():
            part.load({key[2:]: value for key, value in tensors.items() if key.startswith(f"{letter}.")})
    except (SafetensorError, FileNotFoundError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise damaged(path, error) from error
    return progress


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
    """Copy tensors into the model in place, since the optimizer and the engine hold its parameters.

    Raises ValueError if one of the `expected` weights is missing, unless another shares its memory; UserError for a weight that the model
    lacks.
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
