"""A batch that requests join and leave at any token (continuous batching), for a server.

Each request has its own sampling, limits, stop texts and number of samples. Its prompt is computed once for all of its samples, and what
prompts have in common once for all of them (`etude.engine.common_prefixes`). A sample depends on the weights, the prompt and its key alone,
as in `etude.engine.transformers`: with the same key, it is the sample of `generate`, up to rounding. Shapes: B rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch

from etude.engine.blocks import BlockContext
from etude.engine.common_prefixes import CommonPrefixes
from etude.engine.completion import Tokens
from etude.engine.detokenizer import Detokenizer
from etude.engine.protocols import SharedPrefixForward
from etude.engine.sampling import Sampling, sample
from etude.randomness import uniforms

Ended = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Likely:
    """A sampled token with the model's own log-probs (natural, at temperature 1)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens with their log-probs, best first."""


class Receiver(Protocol):
    """Takes what a request gets, on the thread of the batch."""

    def token(self, sample: int, text: str, found: Likely | None) -> None:
        """Take a token of a sample: the text that is certain now ("" if none is), and its log-probs if the request wants them."""

    def end(self, sample: int, text: str, finish: Ended, num_tokens: int) -> None:
        """Take the end of a sample: the rest of its text, and how many tokens it had."""

    def fail(self, error: Exception) -> None:
        """Take the error that ended the request."""


@dataclass
class Request:
    """A prompt to be continued."""

    prompt: Tokens
    keys: tuple[int, ...]
    """The keys of the random numbers, one for each sample."""
    max_new_tokens: int
    sampling: Sampling
    receiver: Receiver
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    """Number of most likely tokens to tell with each token; None: no log-probs at all."""
    is_cancelled: bool = field(default=False, init=False)
    """Set from any thread; its samples end before their next token."""


@dataclass
class _Row:
    """A sample that is decoded."""

    request: Request
    sample: int
    text: Detokenizer
    count: int = 0
    finish: Ended | None = None


class ContinuousBatch:
    """Rows that are decoded together; not safe for threads."""

    def __init__(
        self,
        shared: SharedPrefixForward,
        text_of: Callable[[Sequence[int]], str],
        end_tokens: frozenset[int],
        *,
        most_rows: int,
        most_new_tokens: int,
    ) -> None:
        """Prepare a batch of up to `most_rows` samples of up to `most_new_tokens` tokens, with memory for all of them."""
        self._shared, self._text_of, self._end_tokens = shared, text_of, end_tokens
        self.most_rows, self.most_new_tokens = most_rows, most_new_tokens
        self._prefixes = CommonPrefixes()
        self._rows: list[_Row] = []
        self._context: BlockContext | None = None
        self._logits_BV = torch.empty(0)

    def __len__(self) -> int:
        return len(self._rows)

    def has_room(self, requests: Sequence[Request]) -> bool:
        """Return whether these requests fit beside the others."""
        return len(self._rows) + sum(len(request.keys) for request in requests) <= self.most_rows

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> None:
        """Compute the prompts of requests, which must have room, and add their samples."""
        opened, logits_PV = self._prefixes.prefill(self._shared.forward, [request.prompt for request in requests])
        prompt_N = torch.tensor([place for place, request in enumerate(requests) for _ in request.keys])
        if self._context is None:
            self._context = opened.begin(prompt_N, self.most_new_tokens, samples=self.most_rows)
            self._logits_BV = logits_PV[prompt_N]
        else:
            self._context.enter(self._context.add(opened)[prompt_N])
            self._logits_BV = torch.cat([self._logits_BV, logits_PV[prompt_N]])
        for request in requests:
            self._rows += [_Row(request, sample, Detokenizer(self._text_of, request.stop)) for sample in range(len(request.keys))]

    @torch.inference_mode()
    def step(self) -> None:
        """Sample a token of every row, tell it, and compute the logits after it; ended rows leave."""
        for row in self._rows:
            if row.request.is_cancelled:
                self._end(row, "cancelled")
        tokens = self._sampled()
        found = self._likely(tokens)
        for place, row in enumerate(self._rows):
            if row.finish is None:
                self._take(row, tokens[place], found.get(place))
        going = [place for place, row in enumerate(self._rows) if row.finish is None]
        if not going:
            self.clear()
            return
        assert self._context is not None
        if len(going) < len(self._rows):
            self._context.keep(torch.tensor(going), self.most_new_tokens)
            self._rows = [self._rows[place] for place in going]
        self._logits_BV = self._context.next_logits(torch.tensor([tokens[place] for place in going]))

    def clear(self) -> None:
        """Remove all rows and free their memory."""
        self._rows, self._context, self._logits_BV = [], None, torch.empty(0)

    def fail(self, error: Exception) -> None:
        """End all requests with an error."""
        for request in {id(row.request): row.request for row in self._rows}.values():
            request.receiver.fail(error)
        self.clear()

    def _sampled(self) -> list[int]:
        """Sample a token of every row, those with equal settings at once."""
        keys_B = np.array([row.request.keys[row.sample] for row in self._rows], dtype=np.uint64)
        uniform_B = torch.from_numpy(uniforms(keys_B, np.array([row.count for row in self._rows])))
        groups: dict[Sampling, list[int]] = {}
        for place, row in enumerate(self._rows):
            groups.setdefault(row.request.sampling, []).append(place)
        found = [0] * len(self._rows)
        for sampling, places in groups.items():
            chosen = torch.tensor(places)
            tokens, _ = sample(self._logits_BV if len(groups) == 1 else self._logits_BV[chosen], sampling, uniform_B[chosen])
            for place, token in zip(places, tokens.tolist(), strict=True):
                found[place] = token
        return found

    def _likely(self, tokens: Sequence[int]) -> dict[int, Likely]:
        """Return the log-probs of the rows whose requests want them."""
        wanted = [place for place, row in enumerate(self._rows) if row.request.top_logprobs is not None and row.finish is None]
        if not wanted:
            return {}
        logprobs_NV = self._logits_BV[torch.tensor(wanted)].float().log_softmax(-1)
        return {
            place: likely(logprobs_V, tokens[place], self._rows[place].request.top_logprobs or 0)
            for place, logprobs_V in zip(wanted, logprobs_NV, strict=True)
        }

    def _take(self, row: _Row, token: int, found: Likely | None) -> None:
        row.count += 1
        row.request.receiver.token(row.sample, row.text.put(token), found)
        if token in self._end_tokens or row.text.is_stopped:
            self._end(row, "stop")
        elif row.count >= row.request.max_new_tokens:
            self._end(row, "length")

    @staticmethod
    def _end(row: _Row, finish: Ended) -> None:
        row.finish = finish
        row.request.receiver.end(row.sample, row.text.rest(), finish, row.count)


def likely(logprobs_V: torch.Tensor, token: int, top: int) -> Likely:
    """Return a token with its log-prob and the `top` most likely ones."""
    best = logprobs_V.topk(top) if top else None
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return Likely(token, float(logprobs_V[token]), tuple(pairs))
