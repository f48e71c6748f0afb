"""Writes configuration files that older programs can read: with the names of transformers 4 in addition to those of transformers 5.

file                    transformers 5                      transformers 4, and what was written for it
tokenizer_config.json   a class that is tokenizer.json      PreTrainedTokenizerFast, which both read as that file says; Llama's, Gemma's and
                                                            other classes of version 4 put their own tokens around a text
                        what the class is by default        padding_side, truncation_side, model_input_names
                        extra_special_tokens, a list        additional_special_tokens
                        (how it was loaded)                 removed
config.json             rope_parameters                     rope_theta, rope_scaling, partial_rotary_factor, or the architecture's names
                        dtype                               torch_dtype
                        num_local_experts of qwen3_moe      num_experts

Both read the file: a new name wins if both exist, and no addition changes the values that version 5 reads.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

_ABOUT_LOADING = ("is_local", "local_files_only", "backend")
_OF_CLASS = ("padding_side", "truncation_side", "model_input_names")
_GLOBAL = {"gpt_neox": "rotary_emb_base", "gpt_neox_japanese": "rotary_emb_base", "modernbert-decoder": "global_rope_theta"}
_LOCAL = {"gemma3_text": "rope_local_base_freq", "gemma3n_text": "rope_local_base_freq", "modernbert-decoder": "local_rope_theta"}
_PARTIAL = {"gpt_neox": "rotary_pct", "gpt_neox_japanese": "rotary_pct"}
"""Version 4's names of the rotary base (of all layers, of those with a window) and the rotary share of a head, by model type, if they
differ from `rope_theta` and `partial_rotary_factor`."""


def make_portable(folder: Path, tokenizer: Any) -> None:
    """Add the old names to the configuration files of a folder written by transformers 5, and to those of `tokenizer`."""
    tokenizer_file, config = folder / "tokenizer_config.json", folder / "config.json"
    if tokenizer_file.is_file():
        values = {name: value for name, value in _read(tokenizer_file).items() if name not in _ABOUT_LOADING}
        if isinstance(values.get("extra_special_tokens"), list):
            values["additional_special_tokens"] = values.pop("extra_special_tokens")
        if (folder / "tokenizer.json").is_file() and "auto_map" not in values:
            values |= {"tokenizer_class": "PreTrainedTokenizerFast", **{name: getattr(tokenizer, name) for name in _OF_CLASS}}
        _write(tokenizer_file, values)
    if config.is_file() and _of_5(both := with_old_names(_read(config))) == _of_5(_read(config)):
        _write(config, both)


def with_old_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a `config.json` together with the names that version 4 reads.

    >>> with_old_names({"model_type": "llama", "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}})["rope_theta"]
    100000.0
    """
    kind, both = config.get("model_type", ""), dict(config)
    if isinstance(both.get("dtype"), str):
        both["torch_dtype"] = both["dtype"]
    if kind == "qwen3_moe" and "num_local_experts" in both:
        both["num_experts"] = both["num_local_experts"]
    inner = {name: with_old_names(value) for name, value in both.items() if name.endswith("_config") and isinstance(value, Mapping)}
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        return both | inner
    of_all = parameters.get("full_attention", parameters)
    of_window = parameters.get("sliding_attention")
    both |= _of_one(of_all, _GLOBAL.get(kind, "rope_theta"), _PARTIAL.get(kind, "partial_rotary_factor"))
    if of_window and kind in _LOCAL:
        both[_LOCAL[kind]] = of_window["rope_theta"]
    return both | inner


def _of_one(parameters: Mapping[str, Any], base: str, share: str) -> dict[str, Any]:
    """Return the old names of one set of rotary parameters, with those of scaling only if there is scaling."""
    scaling = {name: value for name, value in parameters.items() if name not in ("rope_theta", "partial_rotary_factor")}
    names = {base: parameters.get("rope_theta"), share: parameters.get("partial_rotary_factor")}
    names["rope_scaling"] = scaling if scaling.get("rope_type", "default") != "default" else None
    return {name: value for name, value in names.items() if value is not None}


def _of_5(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the values that version 5 reads in a `config.json`; None for an architecture with its own code."""
    try:
        read: dict[str, Any] = AutoConfig.for_model(**copy.deepcopy(dict(values))).to_dict()
    except ValueError:
        return None
    return read


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
