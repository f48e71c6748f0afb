"""A checkpoint: a plain Hugging Face folder, and beside the weights what it takes to go on training.

learner.safetensors   optimizer tensors (`o.`), the adapters where the model has them (`a.`), the step model where there is one (`s.`)
progress.json         written last: a folder without it is not a checkpoint
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from etude.adapters import base_of, has_adapters
from etude.errors import UserError
from etude.learn.learner import Learner
from etude.learn.step_model import StepModel
from etude.models import save_model
from etude.recipes.asking import remember
from etude.recipes.settings import PracticeSettings
from etude.runs import RunFolder, damaged, read_progress


def save_checkpoint(
    folder: RunFolder,
    name: str,
    model: Any,
    tokenizer: Any,
    learner: Learner | None,
    progress: Mapping[str, Any],
    *,
    settings: PracticeSettings,
    step_model: StepModel | None = None,
    keep: int = 1,
) -> None:
    """Write the checkpoint beside its place and move it there by one rename."""
    partial = folder.path / "checkpoints" / f"{name}.writing"
    remember(save_model(model, tokenizer, partial), settings)
    tensors = {f"o.{key}": value for key, value in (learner.state() if learner else {}).items()}
    tensors |= {f"s.{key}": value for key, value in (step_model.state() if step_model else {}).items()}
    tensors |= {f"a.{key}": value.detach() for key, value in _adapters(model).items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, partial / "learner.safetensors")
    folder.commit_checkpoint(partial, name, progress, keep=keep)


def load_checkpoint(path: Path, model: Any, learner: Learner | None = None, step_model: StepModel | None = None) -> dict[str, Any]:
    """Bring a checkpoint's weights, adapters, optimizer and step model back; returns its progress."""
    try:
        tensors = load_file(path / "learner.safetensors")
        adapters = {key[2:]: value for key, value in tensors.items() if key.startswith("a.")}
        if adapters:
            _load(model, adapters)
        else:
            files = sorted(path.glob("model*.safetensors")) or [path / "model.safetensors"]
            weights = {name: value for file in files for name, value in load_file(file).items()}
            _load(model, weights if weights.keys() <= model.state_dict().keys() else _renamed(path, model))
        if learner is not None:
            learner.load({key[2:]: value for key, value in tensors.items() if key.startswith("o.")})
        if step_model is not None:
            step_model.load({key[2:]: value for key, value in tensors.items() if key.startswith("s.")})
    except (SafetensorError, FileNotFoundError, RuntimeError, KeyError) as error:
        raise damaged(path, error) from error
    return read_progress(path)


def _adapters(model: Any) -> dict[str, torch.Tensor]:
    if not has_adapters(model):
        return {}
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _renamed(path: Path, model: Any) -> Mapping[str, torch.Tensor]:
    """The weights under the names that they have in memory: transformers saves the fused experts of a mixture one by one."""
    return base_of(model).from_pretrained(path, dtype=torch.float32).state_dict()


@torch.no_grad()
def _load(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors into the model in place (the optimizer and the engine hold on to its parameters)."""
    own = model.state_dict()
    for name, value in tensors.items():
        if name not in own:
            raise UserError(f"the checkpoint has a weight {name!r} that the model lacks: resume with the model that it was made from")
        own[name].copy_(value)
