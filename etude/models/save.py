"""Saves a model as a plain Hugging Face folder, with LoRA adapters merged."""

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from etude.models.adapters import base_of, merged_weights
from etude.models.portable import make_portable


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
    generation: GenerationConfig | None = None,
) -> Path:
    """Write a Hugging Face folder that `AutoModelForCausalLM` of transformers 4.5x and 5 loads.

    LoRA adapters are merged into the saved copy, unless `weights` are given. `generation` is the saved generation configuration; default:
    the model's own.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    plain = base_of(model)
    original, plain.generation_config = plain.generation_config, generation or writable(plain.generation_config)
    try:
        plain.save_pretrained(partial, state_dict=merged_weights(model) if weights is None else weights)
    finally:
        plain.generation_config = original
    tokenizer.save_pretrained(partial)
    make_portable(partial, tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def writable(generation: GenerationConfig) -> GenerationConfig:
    """Return a generation configuration that transformers accepts for writing: sampling values without sampling get `do_sample`."""
    try:
        generation.validate(strict=True)
    except ValueError:
        generation = copy.deepcopy(generation)
        generation.do_sample = True
    return generation


def copy_prompt_settings(source: str, folder: Path) -> None:
    """Copy the prompt settings (etude.yaml) of the model folder `source`, if any, to a folder derived from it."""
    asked = Path(source).expanduser() / "etude.yaml"
    if asked.is_file():
        shutil.copyfile(asked, folder / asked.name)
