"""The kernels of `kernels.cpp`: compiled on the machine that runs them, kept in the cache folder, called with tensors.

A decoding step of a small model has some thousand operations between its matrix products, each a call, a pass over memory and a wait for
all threads; here they are a few. They need a C++ compiler (`CXX`, else c++), once for a few seconds. Without one, or with `CXX` set to
nothing, torch's own operations do the same, slower. They share torch's threads, since the symbols of OpenMP are those that torch has
loaded. Shapes: as in `etude.engine.attention`; S heads of queries, keys and values side by side.
"""

import ctypes
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from etude.models import cache_folder

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC")
BLOCK = 32
"""Positions that lie together: two vectors of scores, which the processor's tiles want in pairs."""

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def kernels_for(device: torch.device, dtype: torch.dtype) -> "Kernels | None":
    """The kernels for tensors of a precision; None where there are none, which is said once."""
    found = _library() if device.type == "cpu" and dtype in _NAMES else None
    return found[dtype] if found else None


class Kernels:
    """Operations on tensors of one precision on a CPU. Of every tensor the last dimension lies close together."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self._put, self._repeat, self._attend, self._rms_norm, self._rotate, self._sample = (
            getattr(library, f"{kernel}_{name}") for kernel in ("put", "repeat", "attend", "rms_norm", "rotate", "sample")
        )
        self._product = library.product_bfloat16 if name == "bfloat16" else None
        self.product_rows = 0 if self._product is None else 64 if library.has_tiles() else 4
        """Up to how many rows `product` is faster than oneDNN's (SmolLM2-135M, 2 cores with AMX, and without)."""

    def rms_norm(self, x_NE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
        """x / √(mean x² + ε) · weight, rounded once."""
        found = torch.empty_like(x_NE)
        self._rms_norm(_at(x_NE), *x_NE.shape, _at(weight_E), epsilon, _at(found))
        return found

    def rotate(
        self,
        states_NSD: torch.Tensor,
        heads: int,
        kv_heads: int,
        cos_ND: torch.Tensor,
        sin_ND: torch.Tensor,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        epsilon: float,
    ) -> None:
        """Give queries and keys, the first H + K of the S heads of a row, their positions, in place: x cos + (-x₂, x₁) sin.

        `norms`: weights [D] by which queries and keys are normed before.
        """
        rows, row = states_NSD.shape[0], states_NSD.stride(0)
        weights = (None, None) if norms is None else tuple(map(_at, norms))
        self._rotate(_at(states_NSD), rows, row, heads, kv_heads, cos_ND.shape[-1], _at(cos_ND), _at(sin_ND), *weights, epsilon)

    def put(
        self, store: "Store", rows_N: torch.Tensor, positions_N: torch.Tensor, keys_NKD: torch.Tensor, values_NKD: torch.Tensor
    ) -> None:
        """Keep keys and values at these rows and positions."""
        keys_NKD, values_NKD = _alike(keys_NKD, values_NKD)
        number, kv_heads, width = keys_NKD.shape
        places = _at(rows_N), _at(positions_N), number
        self._put(*store.arguments, *places, _at(keys_NKD), _at(values_NKD), *keys_NKD.stride()[:2], kv_heads, width)

    def repeat(self, store: "Store", from_N: torch.Tensor, to_N: torch.Tensor, positions: int) -> None:
        """Copy rows' first positions to other rows."""
        for states in store.states():
            row, head, _, width = states.stride()[0], states.stride()[1], *states.shape[2:]
            self._repeat(_at(states), row, head, _at(from_N), _at(to_N), len(from_N), store.kv_heads, positions * width)

    def product(
        self, x_NE: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None, then: str, other: torch.Tensor | None
    ) -> torch.Tensor:
        """then(x Wᵀ + b, other), rounded once; `weights` as `in_blocks` lays them out, `then` one of `THEN`."""
        assert self._product is not None
        outputs, width = weights.shape
        found = x_NE.new_empty(*x_NE.shape[:-1], outputs)
        given = (None if part is None else _at(part) for part in (bias, other))
        self._product(_at(x_NE), found.numel() // outputs, width, _at(weights), outputs, next(given), THEN[then], next(given), _at(found))
        return found

    def attend(
        self,
        queries_NHD: torch.Tensor,
        *,
        prompts: "Store",
        seen_N: torch.Tensor,
        items: torch.Tensor,
        scale: float,
        own: "Own | None" = None,
    ) -> torch.Tensor:
        """Softmax attention of every row over the first `seen_N` positions of its prompt, and over its own: [N, H, D].

        `items` [I, 3] names a prompt and the first and the end of rows that see it, for which a thread reads it once.
        """
        queries_NHD = queries_NHD if queries_NHD.stride(-1) == 1 else queries_NHD.contiguous()
        rows, heads, width = queries_NHD.shape
        read_NHD = torch.empty(rows, heads, width, dtype=queries_NHD.dtype)
        mine = own.arguments() if own else (None, None, 0, 0, None, None, 0, None, None)
        self._attend(
            *(_at(queries_NHD), *queries_NHD.stride()[:2], *mine, *prompts.arguments, _at(seen_N), _at(items), len(items)),
            *(heads, prompts.kv_heads, width, scale, _at(read_NHD)),
        )
        return read_NHD

    def sample(
        self, logits_BV: torch.Tensor, temperature: float, uniform_N: torch.Tensor | None, row_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `etude.engine.sampling.sample` without restrictions; the best tokens where `uniform_N` is None."""
        logits_BV, row_N = logits_BV.contiguous(), row_N.contiguous()
        uniform_N = None if uniform_N is None else uniform_N.double().contiguous()
        tokens_N, logprobs_N = torch.empty(len(row_N), dtype=torch.long), torch.empty(len(row_N))
        uniforms = None if uniform_N is None else _at(uniform_N)
        self._sample(_at(logits_BV), *logits_BV.shape, 1 / temperature, uniforms, _at(row_N), len(row_N), _at(tokens_N), _at(logprobs_N))
        return tokens_N, logprobs_N


THEN = {"none": 0, "add": 1, "mul": 2, "swish": 3}
"""What may follow a product: nothing, plus or times another tensor, SiLU."""


def in_blocks(weight: torch.Tensor) -> torch.Tensor | None:
    """A weight [out, in] of bfloat16 as `Kernels.product` reads it: outputs lie as positions of keys do. None where it does not fit."""
    outputs, width = weight.shape
    if outputs % BLOCK or width % 32:
        return None
    pairs = weight.contiguous().view(torch.int32).view(outputs // 16, 16, width // 2)
    return pairs.transpose(1, 2).contiguous().view(torch.bfloat16).view(outputs, width)


class Store:
    """Keys and values [rows, K, positions, D] in the kernels' layout; positions a multiple of `BLOCK`."""

    def __init__(self, keys_RKTD: torch.Tensor, values_RKTD: torch.Tensor) -> None:
        self.keys_RKTD, self.values_RKTD = keys_RKTD, values_RKTD
        _, self.kv_heads, positions, self.width = keys_RKTD.shape
        self.arguments = _at(keys_RKTD), _at(values_RKTD), positions
        """Asked for at every layer of every step."""

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys_RKTD, self.values_RKTD

    @staticmethod
    def of(rows: int, kv_heads: int, positions: int, width: int, dtype: torch.dtype) -> "Store":
        """An empty one: of zeros, since what is masked must be a number still."""
        return Store(*(torch.zeros(rows, kv_heads, positions, width, dtype=dtype) for _ in range(2)))


@dataclass
class Own:
    """What rows have behind them beside a prompt."""

    keys_NKD: torch.Tensor
    """Of the new token, which are put behind the others."""
    values_NKD: torch.Tensor
    store: Store
    slot_N: torch.Tensor
    """Where a row lies in the store."""
    drawn_N: torch.Tensor
    """Positions before the new token."""

    def __post_init__(self) -> None:
        self.keys_NKD, self.values_NKD = _alike(self.keys_NKD, self.values_NKD)  # kept here, since kernels are given addresses alone

    def arguments(self) -> tuple[Any, ...]:
        strides = self.keys_NKD.stride()[:2]
        return _at(self.keys_NKD), _at(self.values_NKD), *strides, *self.store.arguments, _at(self.slot_N), _at(self.drawn_N)


def _at(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def _alike(keys_NKD: torch.Tensor, values_NKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """With the same strides."""
    if keys_NKD.stride() == values_NKD.stride() and keys_NKD.stride(-1) == 1:
        return keys_NKD, values_NKD
    return keys_NKD.contiguous(), values_NKD.contiguous()


# ---------------------------------------------------------------------- compiled


@cache
def _library() -> dict[torch.dtype, Kernels] | None:
    """Loaded once: kernels are asked for at every token."""
    try:
        library = _declared(ctypes.CDLL(str(_compiled())))
        return {dtype: Kernels(library, name) for dtype, name in _NAMES.items()}
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("decoding by torch's operations, since the faster kernels could not be compiled: %s", _reason(error))
        return None


def _compiled() -> Path:
    """The library for this source, compiler and processor, made if it is not there."""
    compiler = os.environ.get("CXX", "c++").split()
    if not compiler:
        raise OSError("CXX is set to nothing")
    version = _run([*compiler, "--version"])
    key = hashlib.sha256("\n".join([_SOURCE.read_text(), *compiler, version, *_FLAGS, _processor()]).encode()).hexdigest()[:16]
    kept = cache_folder() / "kernels" / f"{key}.so"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            compiled, linked = Path(scratch) / "kernels.o", Path(scratch) / "kernels.so"
            _run([*compiler, *_FLAGS, "-c", str(_SOURCE), "-o", str(compiled)])
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


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    at, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_float
    store = [at, at, number]
    arguments: dict[str, list[Any]] = {
        "put": [*store, at, at, number, at, at, number, number, number, number],
        "attend": [at, number, number, at, at, number, number, *store, at, at, *store, at, at, number, number, number, number, real, at],
        "rms_norm": [at, number, number, at, real, at],
        "rotate": [at, number, number, number, number, number, at, at, at, at, real],
        "sample": [at, number, number, real, at, at, number, at, at],
        "repeat": [at, number, number, at, at, number, number, number],
    }
    for name, types in arguments.items():
        for dtype in _NAMES.values():
            function = getattr(library, f"{name}_{dtype}")
            function.argtypes, function.restype = types, None
    library.product_bfloat16.argtypes = [at, number, number, at, number, at, ctypes.c_int, at, at]
    library.product_bfloat16.restype = None
    return library


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return (error.stderr or str(error)).strip().splitlines()[0]
    return str(error)
