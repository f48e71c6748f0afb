"""Limits of the machine: the threads of a run, and one sentence where memory or disk are full."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError

from etude.device.machine import Machine, threads_of
from etude.errors import UserError

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
_NO_SPACE = ("no space left on device", f"os error {errno.ENOSPC}", f"os error {errno.EDQUOT}", "disk quota exceeded")


@contextmanager
def within_limits(machine: Machine, what_is_kept: str = "", before: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Compute with the number of threads of `threads_of`. Raises UserError with the way out where the memory or the disk is full.

    `what_is_kept` says how to go on; `before` is the environment that a resumed run began in.
    """
    and_then = f"; {what_is_kept}" if what_is_kept else ""
    usual = torch.get_num_threads()
    torch.set_num_threads(threads_of(machine, before))
    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        said = str(error).lower()
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in said for words in _NO_MEMORY):
            raise UserError(
                f"out of memory: lower machine.kv_cache_tokens (now {machine.kv_cache_tokens}) or machine.max_tokens_per_microbatch "
                f"(now {machine.max_tokens_per_microbatch}), which changes no result but for rounding{and_then}"
            ) from error
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or any(words in said for words in _NO_SPACE):
            raise UserError(f"the disk is full ({str(error).splitlines()[0]}): make room{and_then}") from error
        raise
    finally:
        torch.set_num_threads(usual)
