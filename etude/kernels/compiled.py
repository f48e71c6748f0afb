"""Kernels compiled on the machine that runs them, kept in the cache folder, and called with tensors.

They need a C++ compiler (`CXX`, else c++), once for a few seconds. Without one, or with `CXX` set to nothing, torch's own operations do the
same, slower. They share torch's threads, since the symbols of OpenMP are those that torch has loaded.
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

from etude.models import cache_folder

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
WIDTH = 16
"""The most numbers that a vector has (`W` in `vectors.h`): what is computed in whole vectors is a multiple of it."""
AT, NUMBER, REAL = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-strict-aliasing", "-fopenmp", "-fPIC")


def at(tensor: torch.Tensor) -> int:
    """Where a tensor's numbers lie; the caller keeps the tensor as long as a kernel reads it."""
    return tensor.data_ptr()


def library(source: str, declared: Mapping[str, Sequence[Any]]) -> ctypes.CDLL | None:
    """The kernels of a source in this folder, each declared with its arguments for both precisions; None where there is no compiler,
    which is said once."""
    try:
        found = ctypes.CDLL(str(_compiled(source)))
    except (OSError, subprocess.SubprocessError) as error:
        _say(_reason(error))
        return None
    for name, types in declared.items():
        for dtype in DTYPES.values():
            function = getattr(found, f"{name}_{dtype}")
            function.argtypes, function.restype = types, None
    return found


@cache
def _say(reason: str) -> None:
    log.warning("computing by torch's operations, since the faster kernels could not be compiled: %s", reason)


def _compiled(source: str) -> Path:
    """The library for this source, compiler and processor, made if it is not there."""
    compiler = os.environ.get("CXX", "c++").split()
    if not compiler:
        raise OSError("CXX is set to nothing")
    version = _run([*compiler, "--version"])
    texts = [(HERE / name).read_text() for name in (source, *sorted(path.name for path in HERE.glob("*.h")))]
    key = hashlib.sha256("\n".join([*texts, *compiler, version, *_FLAGS, _processor()]).encode()).hexdigest()[:16]
    kept = cache_folder() / "kernels" / f"{key}.so"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            compiled, linked = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
            _run([*compiler, *_FLAGS, "-c", str(HERE / source), "-o", str(compiled)])
            # linked without OpenMP's library, since a second one would bring threads of its own
            _run([*compiler, "-shared", str(compiled), "-o", str(linked)])
            linked.replace(kept)
    return kept


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def _processor() -> str:
    """What the compiler's `native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = [line for line in lines if line.startswith(("flags", "Features", "model name"))]
    return "\n".join([platform.machine(), platform.processor(), *flags[:2]])


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return (error.stderr or str(error)).strip().splitlines()[0]
    return str(error)
