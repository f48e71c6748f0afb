"""Answers by transformers' `generate` from a Hugging Face folder: prompts of about one length together, padded on the left.

With compressed-tensors, transformers multiplies by weights that are unpacked and by activations rounded as an 8-bit kernel would: what is
answered is what 8-bit kernels answer, and the time is not theirs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from etude.export.formats import Answer

_BATCH = 16


def open_runtime(place: Path, *, longest_tokens: int, ends: frozenset[int], threads: int) -> Answer:
    """Load a folder in the precision that it is saved in; `longest_tokens` is free."""
    torch.set_num_threads(threads)
    options: dict[str, Any] = {"dtype": "auto", "use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(str(place), **options).eval()

    def of_batch(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        width = max(map(len, prompts))
        tokens = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        asked: dict[str, Any] = {"do_sample": False, "max_new_tokens": max_new_tokens, "pad_token_id": 0}
        asked |= {"eos_token_id": sorted(ends)} if ends else {"min_new_tokens": max_new_tokens}
        with torch.inference_mode():
            found = model.generate(input_ids=tokens, attention_mask=mask, **asked)[:, width:].tolist()
        return [_until(each, ends) for each in found]

    def answer(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            found |= zip(places, of_batch([prompts[place] for place in places], max_new_tokens), strict=True)
        return [found[place] for place in range(len(prompts))]

    return answer


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """Return the tokens up to the first that ends an answer."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in ends), len(tokens)) + 1]
