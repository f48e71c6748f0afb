"""Answers by llama.cpp, through its server in the package xllamacpp: one prompt after another, with its default cache in half precision."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import xllamacpp

from etude.errors import UserError
from etude.export.formats import Answer


def open_runtime(place: Path, *, longest_tokens: int, ends: frozenset[int], threads: int) -> Answer:
    """Load a GGUF file; where answers end, the file says. The server listens on a free port of this machine alone."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(place)
    settings.hostnames = ["127.0.0.1"]
    settings.n_ctx, settings.n_parallel, settings.verbosity = longest_tokens, 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    try:
        server = xllamacpp.Server(settings)
    except RuntimeError as error:
        raise UserError(f"llama.cpp can't load {place}: {error}") from error

    direct = build_opener(ProxyHandler({}))

    def of_one(prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        asked: dict[str, Any] = {"prompt": list(prompt), "n_predict": max_new_tokens, "temperature": 0, "ignore_eos": not ends}
        body = json.dumps(asked | {"return_tokens": True, "cache_prompt": False}).encode()
        with direct.open(Request(f"{server.listening_address}/completion", body, {"Content-Type": "application/json"})) as reply:
            tokens: list[int] = json.load(reply)["tokens"]
        return tokens

    return lambda prompts, max_new_tokens: [of_one(prompt, max_new_tokens) for prompt in prompts]
