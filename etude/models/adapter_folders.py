"""Reads and writes LoRA adapter folders in PEFT's format: `adapter_config.json` with the base model, and `adapter_model.safetensors`.

A folder's configuration is untrusted data: only plain LoRA is read, no pickle, and nothing that would import code.
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
"""The key for which PEFT imports a module."""


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter and no full model."""
    return (folder / CONFIGURATION).is_file() and not (folder / "config.json").exists()


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write a peft model's adapters into a folder; `base` is the folder or hub id from which transformers loads the base model."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = base, True
    config.target_modules = sorted(config.target_modules)  # the order of a set differs between processes
    config.save_pretrained(str(folder))
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: value.contiguous() for name, value in sorted(weights.items())}, folder / WEIGHTS, metadata={"format": "pt"})


def base_of_adapter(name: str, folder: Path) -> str:
    """Return the base model that an adapter's configuration names: a name, or a folder relative to here or to the adapter.

    Raises UserError for an adapter that cannot be merged, and for one without a base.
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


def merge_adapter(model: Any, folder: Path) -> Any:
    """Merge an adapter's folder into its base model's weights and return the model. Raises ValueError if the layers do not match."""
    from peft import PeftModel, get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing weights are checked below
        loaded = PeftModel.from_pretrained(model, str(folder))
    with safe_open(folder / WEIGHTS, "pt") as file:
        odd = sorted(file.keys() ^ get_peft_model_state_dict(loaded, save_embedding_layers=False).keys())
    if odd:  # peft initialises missing weights, and ignores unknown ones
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
