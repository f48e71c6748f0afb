"""Checks an untrusted model folder before transformers reads it.

| file | refused |
|---|---|
| `*.safetensors.index.json` | weights outside the folder, or other than safetensors |
| `config.json`, `generation_config.json`, `tokenizer_config.json` | files other than a JSON object, or longer than `MAX_BYTES` |
| `config.json` | `transformers_weights` that names a pickle or a path outside the folder |
| | attention or experts by code from the hub (`attn_implementation: owner/name`), at any depth |
| | more layers than the weights can fill: transformers would create them one by one |

transformers itself refuses code from the folder (`auto_map`), since remote code is off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError

MAX_BYTES = 10_000_000
"""Maximum size of a configuration file, in bytes."""
MAX_LAYERS = 1000
"""Maximum number of layers if the weights have fewer tensors than this; otherwise a layer needs at least one tensor."""
SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json")
INDEX = "model.safetensors.index.json"
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")


def check_files(name: str, folder: Path) -> None:
    """Raise UserError, which begins with the model's name, for the first file of a folder that must not be read."""
    try:
        for file in SETTINGS:
            if (folder / file).exists():
                settings = _object(folder / file)
                if file == "config.json":
                    _check_configuration(settings, folder)
        for index in sorted(folder.glob("*.safetensors.index.json")):
            _check_index(index)
    except UserError as error:
        raise UserError(f"model {name!r}: {error}") from error.__cause__


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.name} is no file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path.name} has {size:,} bytes, the most is {MAX_BYTES:,}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} can't be loaded: it is not JSON that can be read ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path.name} must hold a JSON object, got {type(found).__name__}")
    return found


def _check_configuration(settings: Mapping[str, Any], folder: Path) -> None:
    weights = settings.get("transformers_weights")
    if weights is not None and not _is_beside(weights):
        raise UserError(f"config.json names {weights!r} as transformers_weights, expected a *.safetensors file beside it: remove that line")
    most = None
    for key, value in _entries(settings):
        if key.endswith("_implementation") and (code := next((each for each in _texts(value) if "/" in each or ":" in each), None)):
            raise UserError(f"config.json sets {key} to {code!r}, which is code from the hub and never loaded: remove that line")
        if key in _LAYERS and isinstance(value, int):
            most = most or max(MAX_LAYERS, sum(map(num_tensors, folder.glob("*.safetensors"))))
            if not 1 <= value <= most:
                raise UserError(f"config.json: {key} must be a whole number from 1 to {most:,}, which its weights can fill, got {value}")


def _check_index(index: Path) -> None:
    """Raise UserError for an index with weights outside its folder or other than safetensors, which transformers would load."""
    try:
        files = sorted({str(file) for file in _object(index)["weight_map"].values()})
    except (KeyError, AttributeError) as error:
        raise UserError(f"{index.name} can't be read: it has no weight_map of files by tensor") from error
    for file in files:
        if not _is_beside(file):
            raise UserError(f"{index.name} names {file!r}, expected *.safetensors files beside it")


def num_tensors(path: Path) -> int:
    """Count the tensors of a safetensors file by its header; 0 if the header cannot be read, which loading reports later."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(os.fstat(file.fileno()).st_size, 100_000_000):
            return 0
        try:
            return len(json.loads(file.read(length)))
        except (ValueError, TypeError, RecursionError):
            return 0


def _is_beside(file: Any) -> bool:
    return isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth; recursion is safe, since deeply nested JSON was refused before."""
    if isinstance(settings, Mapping):
        yield from settings.items()
    for inner in settings.values() if isinstance(settings, Mapping) else settings if isinstance(settings, list) else ():
        yield from _entries(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else ():
        yield from _texts(inner)
