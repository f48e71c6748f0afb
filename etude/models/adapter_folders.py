"""Folders of LoRA adapters as PEFT writes and reads them: `adapter_config.json`, which names the base, and `adapter_model.safetensors`.

What a folder's configuration says is data: only plain LoRA is read, no pickle, and nothing that would import code.
"""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from etude.errors import UserError

CONFIGURATION, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_IMPORTS = "megatron_config"
"""The key by which PEFT imports a module that the configuration names."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model of its own."""
    return (folder / CONFIGURATION).is_file() and not (folder / "config.json").exists()


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write the adapters of a peft model into a folder; `base` is what transformers loads its base by: a folder or a hub id."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules = sorted(config.target_modules)  # of a set, whose order differs from process to process
    config.save_pretrained(str(folder))
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: value.contiguous() for name, value in sorted(weights.items())}, folder / WEIGHTS, metadata={"format": "pt"})


def base_of_adapter(name: str, folder: Path) -> str:
    """The model that an adapter's folder is for: a folder, seen from here or from the adapter's, or a name.

    Raises UserError for an adapter that can't be merged, and for one without a base.
    """
    values = _configuration(name, folder)
    if values.get("peft_type") != "LORA":
        raise UserError(f"model {name!r}: expected an adapter of peft_type LORA, got {values.get('peft_type')!r}")
    if values.get(_IMPORTS):
        raise UserError(f"model {name!r}: {CONFIGURATION} sets {_IMPORTS}, by which code would be imported: remove that line")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"model {name!r}: expected {WEIGHTS} beside {CONFIGURATION}; pickles are never loaded")
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"model {name!r}: {CONFIGURATION} names no base: set its base_model_name_or_path to a folder or a hub id")
    place = Path(base).expanduser()
    beside = folder / place
    found = str(beside) if not place.is_dir() and beside.is_dir() else base
    if is_adapter(Path(found)):
        raise UserError(
            f"model {name!r}: its base {base} is an adapter itself: make a model of it with `etude models convert`, and name that one in "
            f"{CONFIGURATION}"
        )
    return found


def merged_adapter(model: Any, folder: Path) -> Any:
    """The base model with an adapter's folder merged into its weights. Raises ValueError where these are not the base's layers."""
    from peft import PeftModel, get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are missing, which is looked at here
        loaded = PeftModel.from_pretrained(model, str(folder))
    with safe_open(folder / WEIGHTS, "pt") as file:
        odd = sorted(file.keys() ^ get_peft_model_state_dict(loaded, save_embedding_layers=False).keys())
    if odd:  # peft makes those anew that are missing, and leaves those out that it has no place for
        raise ValueError(f"its layers are not those of its base and configuration ({', '.join(odd[:2])})")
    return loaded.merge_and_unload().requires_grad_(True)


def _configuration(name: str, folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / CONFIGURATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model {name!r}: {CONFIGURATION} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"model {name!r}: {CONFIGURATION} holds no settings")
    return values
