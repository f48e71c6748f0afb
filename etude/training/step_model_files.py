"""The step model of a saved model, in files beside the weights; evaluate and generate search with it.

step_model.safetensors   the head; the file's metadata has, as JSON, the backbone and the width of the hidden layer
step_model/              an own backbone, as a Hugging Face folder
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from etude.decoding.search_settings import AnswerSearch
from etude.device.machine import Device, Machine
from etude.errors import UserError
from etude.files import write_atomically
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings
from etude.models.load import load_model
from etude.models.save import save_model
from etude.rollouts.search.growing import Value
from etude.rollouts.tree import Node, Tree

FILE, FOLDER = "step_model.safetensors", "step_model"


def value_by(step_model: StepModel) -> Value:
    """Return a function that values search nodes by the step model, ended or not. It computes every prefix from its first token, since the
    engine's keys and values may have another precision.
    """

    def value(pairs: Sequence[tuple[Tree, Node]]) -> list[float | None]:
        own = [(tree.prompt, node.own_tokens) for tree, node in pairs]
        return [found for (found,) in step_model.values([Prefixes(prompt, tokens, (len(tokens),)) for prompt, tokens in own])]

    return value


def value_for(search: AnswerSearch, name: str, model: Any, place: Device, machine: Machine) -> Value | None:
    """Return the function that values nodes by the step model of the saved model `name`, if the search needs one."""
    return value_by(load_step_model(name, model, place, machine)) if search.needs_step_model else None


def save_step_model(step_model: StepModel, tokenizer: Any, folder: Path) -> None:
    """Write the step model into the folder of its model."""
    if step_model.owns_backbone:
        save_model(step_model.backbone, tokenizer, folder / FOLDER)
    told = {FOLDER: json.dumps({"backbone": step_model.settings.backbone, "hidden": step_model.settings.hidden})}
    tensors = {name: value.detach().contiguous() for name, value in step_model.head.state_dict().items()}
    write_atomically(folder / FILE, save(tensors, metadata=told))


def has_step_model(name: str) -> bool:
    """Tell whether the saved model `name` has a step model."""
    return (Path(name) / FILE).is_file()


def load_step_model(name: str, model: Any, place: Device, machine: Machine) -> StepModel:
    """Return the step model of the saved model `name`, which is loaded as `model`."""
    path = Path(name) / FILE
    if not has_step_model(name):
        raise UserError(
            f"the search asks for a step model, but the model {name!r} has none (no {FILE} in its folder): name one that practised "
            "with the callback step_model, or set search.value to likelihood and search.choose to majority"
        )
    try:
        with safe_open(path, framework="pt") as file:
            told, tensors = json.loads((file.metadata() or {})[FOLDER]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        backbone = load_model(str(Path(name) / FOLDER), device=place.device)[0] if told["backbone"] == "own" else model
        settings = StepModelSettings(hidden=told["hidden"])
        made = StepModel(backbone, settings, dtype=place.dtype, batch_tokens=machine.max_tokens_per_microbatch)
        made.head.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is damaged, or of another model ({reason}): copy it anew, or practise again") from error
    return made
