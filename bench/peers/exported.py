"""Greedy answers by the runtime of an exported model, or by etude's engine on the model itself."""

import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from serving import Answer, serve

from etude.device.machine import resolve_device
from etude.device.machine_settings import Machine
from etude.engine.build import engine_at
from etude.engine.sampling import GREEDY
from etude.export.formats import FORMATS
from etude.export.formats import Answer as Greedy
from etude.models.load import load_model

PACKAGES = ("etude", "torch", "transformers", "compressed-tensors", "xllamacpp", "onnxruntime-genai", "openvino-genai")


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    greedy = _by_etude(settings) if settings["format"] == "etude" else _by_runtime(settings)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        found = greedy(request["prompts"], request["tokens"])
        return {"seconds": time.perf_counter() - began, "tokens": sum(map(len, found)), "answers": found}

    return answer, {"versions": {name: metadata.version(name) for name in PACKAGES}}


def _by_etude(settings: dict[str, Any]) -> Greedy:
    torch.set_num_threads(settings["threads"])
    model, tokenizer = load_model(settings["place"])
    machine = Machine()
    engine = engine_at(resolve_device(machine), model, tokenizer, machine)
    engine.end_tokens = frozenset(settings["ends"])

    def answer(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        found = engine.generate(prompts, max_new_tokens=max_new_tokens, sampling=GREEDY)
        return [list(completion.tokens) for (completion,) in found]

    return answer


def _by_runtime(settings: dict[str, Any]) -> Greedy:
    sizes = {"longest_tokens": settings["longest_tokens"], "threads": settings["threads"]}
    return FORMATS[settings["format"]].open(Path(settings["place"]), ends=frozenset(settings["ends"]), **sizes)


if __name__ == "__main__":
    serve(start)
