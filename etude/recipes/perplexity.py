"""The scorer `perplexity` of text selection: the likelihood of a text under a language model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.device.machine import Device, Machine
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.models.load import load_model

_NO_TEXT = -1e9


class Perplexity:
    """Scores a text by minus the nats per token over its first `tokens`; the first token is not predicted."""

    def __init__(self, model: str, place: Device, machine: Machine, tokens: int = 128) -> None:
        self._place, self._machine, self._tokens = place, machine, tokens
        self._model, self._tokenizer = load_model(model, device=self._place.device)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        ids = [self._ids(text) for text in texts]
        places = [place for place, own in enumerate(ids) if len(own) > 1]
        examples = [Example(ids[place][:1], ids[place][1:]) for place in places]
        found = completion_logprobs(self._model, examples, self._place.dtype, batch_tokens=self._machine.max_tokens_per_microbatch)
        scores = np.full(len(texts), _NO_TEXT, dtype=np.float32)
        scores[places] = [sum(logprobs) / len(logprobs) for logprobs in found]
        return scores

    def _ids(self, text: str) -> tuple[int, ...]:
        kept: Any = self._tokenizer(text[: 20 * self._tokens], add_special_tokens=False)["input_ids"][: self._tokens]
        return tuple(kept)
