"""Installs and converts bundled models: the GGUF file of a PyPI package becomes a folder of safetensors in the cache."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel

from etude.errors import UserError, unknown
from etude.fingerprints import sha256_of
from etude.models.bundled import BUNDLED, cache_folder, package_file
from etude.models.gguf import dequantise
from etude.models.save import save_model

log = logging.getLogger(__name__)


def fetch(name: str) -> str:
    """Install the package of a bundled model, by its known checksum and without dependencies, convert it, and return a description.

    Raises UserError for an unknown name and if pip fails.
    """
    if name not in BUNDLED:
        raise unknown("bundled model", name, BUNDLED)
    bundled = BUNDLED[name]
    requirement = f"{bundled.package}=={bundled.version}"
    installed = package_file(bundled) is not None
    if not installed:
        _install(f"{requirement} --hash=sha256:{bundled.wheel_sha256}")
    folder = bundled_folder(name)
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


def bundled_folder(name: str) -> Path:
    """Return the converted folder of a bundled model, which is created once, and again if the copy is damaged.

    Raises UserError if the package is missing or holds another file.
    """
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
    model, tokenizer = dequantise(gguf)
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
