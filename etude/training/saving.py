"""A practised model and its adapters, saved with the prompt format of the run: for etude (`etude.yaml`) and for other programs.

A base model without a chat template gets the one it was prompted with. By default it generates as its run measured: greedily, with the
run's limit of tokens and its end tokens.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from etude.models.adapter_folders import save_adapter
from etude.models.adapters import base_weights, has_adapters
from etude.models.load import end_tokens, transformers_name
from etude.models.portable import make_portable
from etude.models.save import save_model
from etude.rollouts.plain_template import plain_template
from etude.training.generation_config import generation_config_of, save_generation_config
from etude.training.settings import PracticeSettings


def save_asked(model: Any, tokenizer: Any, folder: Path, settings: PracticeSettings) -> Path:
    """Write a Hugging Face folder of a model that practises with these settings."""
    save_model(
        model, told(tokenizer, settings), folder, generation=greedy(model, tokenizer, generation_config_of(settings)["max_new_tokens"])
    )
    save_generation_config(folder, settings)
    return folder


def save_adapters(model: Any, tokenizer: Any, run: Path, base: str, settings: PracticeSettings | None = None) -> Path | None:
    """Write the adapters of a run's model, if it has any, into `adapter` in the run's folder, in PEFT's format.

    `base` is etude's name of their base model; if only etude makes its weights, they are written too, into `base`. `settings` are those of
    a run that prompts its model.
    """
    if not has_adapters(model):
        return None
    known = transformers_name(base)
    if known is None:
        known = str(save_model(model, tokenizer, run / "base", weights=base_weights(model)).resolve())
    partial, folder = run / "adapter.partial", run / "adapter"
    shutil.rmtree(partial, ignore_errors=True)
    save_adapter(model, partial, known)
    (told(tokenizer, settings) if settings else tokenizer).save_pretrained(partial)
    make_portable(partial, tokenizer)
    if settings:
        save_generation_config(partial, settings)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def told(tokenizer: Any, settings: PracticeSettings) -> Any:
    """Return the tokenizer with a chat template: its own, or a copy with the one the model was prompted with, if there is one."""
    if tokenizer.chat_template:
        return tokenizer
    asked, copied = generation_config_of(settings), copy.copy(tokenizer)
    copied.chat_template = plain_template(tokenizer, asked["system"], asked["instruction"])
    return copied


def greedy(model: Any, tokenizer: Any, max_new_tokens: int) -> GenerationConfig:
    """Return the generation config of a run's evaluation."""
    ends = sorted(end_tokens(model, tokenizer))
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=max_new_tokens,
        do_sample=False,
    )
