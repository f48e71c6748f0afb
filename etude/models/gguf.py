"""Loads a GGUF file as an ordinary float32 model."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from etude.models.gguf_header import check_gguf, isolated_file
from etude.models.load_errors import check_complete


def dequantise(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a GGUF file as an ordinary float32 model.

    transformers marks a dequantised model as quantised, which prevents saving and training, so the weights are copied to a new model.
    """
    check_gguf(gguf)
    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    with isolated_file(gguf) as folder:
        found: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    loaded, info = found
    check_complete(info)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    return model.eval(), tokenizer
