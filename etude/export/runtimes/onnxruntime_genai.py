"""Answers by onnxruntime-genai on the processor: one prompt after another."""

import json
from collections.abc import Sequence
from pathlib import Path

import onnxruntime_genai as og

from etude.export.formats import Answer


def open_runtime(place: Path, *, longest_tokens: int, ends: frozenset[int], threads: int) -> Answer:
    """Load a folder of the model builder; `longest_tokens` is free."""
    config = og.Config(str(place))
    config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model = og.Model(config)

    def of_one(prompt: Sequence[int], max_new_tokens: int) -> list[int]:
        settings = og.GeneratorParams(model)
        length = len(prompt) + max_new_tokens
        settings.set_search_options(max_length=length, min_length=0 if ends else length, do_sample=False)
        generator = og.Generator(model, settings)
        generator.append_tokens(list(prompt))
        tokens: list[int] = []
        while len(tokens) < max_new_tokens and not (tokens and tokens[-1] in ends):
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        return tokens

    return lambda prompts, max_new_tokens: [of_one(prompt, max_new_tokens) for prompt in prompts]
