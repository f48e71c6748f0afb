"""The child's side of a benchmark: a process that is given its settings, then one request after another, as lines of JSON.

It runs in the peer's own environment, so it takes nothing but the standard library.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def serve(start: Callable[[dict[str, Any]], tuple[Answer, dict[str, Any]]]) -> None:
    """`start` takes the settings, and returns what answers requests, and what is to be said of it (versions, settings)."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), file=lines, flush=True)

    answer, about = start(json.loads(sys.stdin.readline()))
    say(about)
    for line in sys.stdin:
        _forget_peak()
        found = answer(json.loads(line))
        say(found | {"peak_bytes": _peak_bytes()})


def _forget_peak() -> None:
    with suppress(OSError):  # where there is no /proc, the peak is that of all requests so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def prepare_vllm(threads: int, cache_gib: int) -> None:
    """Set how vLLM's CPU build runs, before it is imported: in this process, on so many cores, without network."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
