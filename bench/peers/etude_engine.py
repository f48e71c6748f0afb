"""Rollouts by etude's engine, log-probs included."""

import time
from typing import Any

import torch
import transformers
from serving import Answer, serve

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.models.load import load_model


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    model, tokenizer = load_model(settings["model"])
    engine = TransformersEngine(model, tokenizer, dtype=getattr(torch, settings["dtype"]))
    engine.end_tokens = frozenset()  # every completion takes all of its tokens, as the peers' do

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        found = engine.generate(
            request["prompts"], num_samples=request["samples"], max_new_tokens=request["tokens"], sampling=Sampling(), seed=request["seed"]
        )
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "tokens": sum(len(sample.tokens) for prompt in found for sample in prompt)}

    return answer, {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


if __name__ == "__main__":
    serve(start)
