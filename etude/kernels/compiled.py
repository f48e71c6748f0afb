"""C++ kernels that are compiled on the local machine, stored in the cache folder, and called with tensors.

Compiling needs a C++ compiler (`CXX`, else c++) and a few seconds, once. Without a compiler, or with an empty `CXX`, torch operations
compute the same more slowly. Kernels share torch's threads: they use the OpenMP symbols that torch has loaded.

A library is machine code. It is loaded only if it belongs to this user or root (`etude.kernels.library_cache`) and is undamaged: its name
ends in its checksum. It is stored after it was loaded and has every kernel; a damaged one is compiled again.
"""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from etude.kernels.library_cache import checked_folder, find_library, store_library
from etude.models.bundled import cache_folder

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
WIDTH = 16
"""Maximum number of values of a vector (`W` in `vectors.h`): sizes computed in whole vectors are multiples of it."""
AT, NUMBER, REAL = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-strict-aliasing", "-fopenmp", "-fPIC")


def at(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's data. The caller must hold the tensor while a kernel reads it."""
    return tensor.data_ptr()


def in_both(declared: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Declare kernels and their arguments in both precisions."""
    return {f"{name}_{dtype}": types for name, types in declared.items() for dtype in DTYPES.values()}


def library(source: str, declared: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """Load the kernels of a source file in this folder, each declared with its arguments. Returns None, with one warning, if they can't be
    compiled or loaded."""
    try:
        found = _loaded(source, list(declared))
    except (OSError, subprocess.SubprocessError) as error:
        _say(_reason(error))
        return None
    for name, types in declared.items():
        function = getattr(found, name)
        function.argtypes, function.restype = types, None
    return found


@cache
def _say(reason: str) -> None:
    log.warning("computing by torch's operations, since the faster kernels could not be compiled or loaded: %s", reason)


def _loaded(source: str, kernels: Sequence[str]) -> ctypes.CDLL:
    """Load the library for this source, compiler and processor; compile it if there is no undamaged one.

    Raises OSError or SubprocessError if it can't be compiled, loaded or trusted, or lacks one of the `kernels`.
    """
    compiler = os.environ.get("CXX", "c++").split()
    if not compiler:
        raise OSError("CXX is set to nothing")
    version = _run([*compiler, "--version"])
    texts = [(HERE / name).read_text() for name in (source, *sorted(path.name for path in HERE.glob("*.h")))]
    key = hashlib.sha256("\n".join([*texts, *compiler, version, *_FLAGS, _processor()]).encode()).hexdigest()[:16]
    folder = checked_folder(cache_folder())
    kept = find_library(folder, key)
    if kept is not None:
        return _opened(kept, kernels)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        compiled, linked = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
        _run([*compiler, *_FLAGS, "-c", str(HERE / source), "-o", str(compiled)])
        # linked without OpenMP's library, since a second one would have its own threads
        _run([*compiler, "-shared", str(compiled), "-o", str(linked)])
        found = _opened(linked, kernels)
        store_library(linked, folder, key)
    return found


def _opened(path: Path, kernels: Sequence[str]) -> ctypes.CDLL:
    found = ctypes.CDLL(str(path))
    for name in kernels:
        if not hasattr(found, name):
            raise OSError(f"the compiled library lacks {name}")
    return found


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf8", errors="replace", check=True, timeout=300)
    return done.stdout


def _processor() -> str:
    """Return the processor features on which the compiler's `-march=native` depends."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *flags[:2]])


def _reason(error: Exception) -> str:
    """Return the first line of the compiler's or loader's message, or the compiler's exit status."""
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = [line.strip() for text in (told or "", str(error)) for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
