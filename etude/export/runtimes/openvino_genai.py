"""Answers by openvino-genai on the processor, with its default precision: one prompt after another."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino_genai
from openvino import Tensor

from etude.export.formats import Answer


def open_runtime(place: Path, *, longest_tokens: int, ends: frozenset[int], threads: int) -> Answer:
    """Load a folder with OpenVINO's model and tokenizer; `longest_tokens` is free."""
    threads = max(2, threads)  # with one, OpenVINO 2026.4.1 divides by zero where a model is tiny
    model = openvino_genai.LLMPipeline(str(place), "CPU", INFERENCE_NUM_THREADS=threads)

    def of_one(prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        asked = openvino_genai.GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, ignore_eos=not ends)
        asked.stop_token_ids = set(ends)
        tokens = np.array([prompt], dtype=np.int64)
        found = model.generate(openvino_genai.TokenizedInputs(Tensor(tokens), Tensor(np.ones_like(tokens))), asked)
        return list(map(int, found.tokens[0]))

    return lambda prompts, max_new_tokens: [of_one(prompt, max_new_tokens) for prompt in prompts]
