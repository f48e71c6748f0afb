"""The decoding loop: samples a batch of completions from a context, token by token."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Segment
from etude.engine.completion import Finish, Prefix, Stop
from etude.engine.protocols import Context, OnPrefix, OnToken
from etude.engine.sampling import Sampling, sample
from etude.errors import UserError
from etude.randomness import uniforms

_COMPACT_BELOW = 0.75
"""Where `Context.keep` copies, finished rows are removed when less than this share of rows is active (and whenever a row forks)."""


@dataclass(frozen=True)
class AdmittedPrompts:
    """Prefilled prompts that join a batch during decoding."""

    prompts: BlockPrompts
    logits_PV: torch.Tensor
    """The logits after them."""
    prefixes: Sequence[Prefix]
    """Their completions: at most as many as have ended in the batch."""
    row_N: np.ndarray
    """The prompt that each completion continues."""
    keys: Sequence[int]


Refill = Callable[[int], AdmittedPrompts | None]
"""Takes the number of active completions; returns prompts that join them, or None."""


class DecodingBatch:
    """A batch of completions that are decoded together: the tokens of each so far, and which are active."""

    def __init__(
        self,
        prefixes: Sequence[Prefix],
        n: int | Sequence[int],
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        decode: Callable[..., str],
        on_complete: OnPrefix | None = None,
        *,
        keeps: bool = False,
        on_token: OnToken | None = None,
    ) -> None:
        """Prepare to sample up to `n` more tokens for each prefix (one number for all, or one each).

        `decode(tokens, shows_special)` returns the text of tokens. `on_complete` is called once for each prefix, as soon as it has ended.
        `keeps`: keep the keys and values that a `BlockContext` computes, in `kept`.

        Raises ValueError if the numbers of prefixes, keys and limits differ.
        """
        self.until, self.sampling, self.decode, self.on_complete, self.keeps = until, sampling, decode, on_complete, keeps
        self.on_token = on_token
        self.num_computed = 0
        """Number of tokens that the model has computed."""
        self.kept: list[Segment] = []
        """For every completion the keys and values of its new tokens except the last, which was not computed; empty unless `keeps`."""
        self._protected: dict[int, tuple[int, int]] = {}
        self.prefixes: list[Prefix] = []
        self.tokens: list[list[int]] = []
        self.logprobs: list[list[float]] = []
        self.finish: list[Finish | None] = []
        self.paused: set[int] = set()
        self.keys_B = np.zeros(0, dtype=np.uint64)
        self.own_before_B = np.zeros(0, dtype=np.int64)
        self.most: list[int] = []
        """The limit of new tokens of each."""
        self._admit(prefixes, keys, n)

    def _admit(self, prefixes: Sequence[Prefix], keys: Sequence[int], n: int | Sequence[int]) -> np.ndarray:
        """Add completions; returns their numbers."""
        first = len(self.prefixes)
        self.prefixes += prefixes
        self.most += [n] * len(prefixes) if isinstance(n, int) else n
        if len(self.most) != len(self.prefixes) or len(keys) != len(prefixes):
            raise ValueError(f"{len(prefixes)} prefixes with {len(keys)} keys, and numbers of tokens for {len(self.most) - first}")
        self.tokens += [[] for _ in prefixes]
        self.logprobs += [[] for _ in prefixes]
        self.finish += [None] * len(prefixes)
        self.keys_B = np.concatenate([self.keys_B, np.array(keys, dtype=np.uint64)])
        self.own_before_B = np.concatenate([self.own_before_B, np.array([len(p.own_logprobs) for p in prefixes], dtype=np.int64)])
        return np.arange(first, len(self.prefixes))

    def run(self, context: Context, logits_BV: torch.Tensor, row_N: np.ndarray, refill: Refill | None = None) -> None:
        """Decode until every completion has ended. `row_N`: the row of `context` that each completion continues; completions with the same
        tokens so far share a row.

        `refill` returns prompts that replace completions that ended, if the context is a `BlockContext`.

        Raises UserError if the logits are not finite.
        """
        going_N, device = self._going(), logits_BV.device
        while True:
            # sample the next token of each completion with its own random number
            uniform_N = torch.from_numpy(uniforms(self.keys_B[going_N], self.own_before_B[going_N] + self._counts(going_N))).to(device)
            tokens_N, logprobs_N = sample(logits_BV, self.sampling, uniform_N, torch.from_numpy(row_N).to(device))
            sampled_N, logprobs = tokens_N.cpu().numpy(), logprobs_N.tolist()
            _check_finite(logprobs)
            self._record(going_N.tolist(), sampled_N.tolist(), logprobs)
            # report the completions that ended, and remove them
            is_going_N = np.array([self._goes_on(i) for i in going_N.tolist()])
            self.hand_out(going_N[~is_going_N].tolist())
            if self.keeps and isinstance(context, BlockContext):
                self._protect(context, going_N[~is_going_N].tolist(), row_N[~is_going_N].tolist())
            if not is_going_N.any():
                self.kept = self._kept(context) if self._protected else []
                return
            going_N, row_N, sampled_N = going_N[is_going_N], row_N[is_going_N], sampled_N[is_going_N]
            # fork rows whose completions sampled different tokens
            more = refill(len(going_N)) if refill and isinstance(context, BlockContext) else None
            branches, branch_N = np.unique(np.stack([row_N, sampled_N], axis=1), axis=0, return_inverse=True)
            parents, next_tokens = branches[:, 0], branches[:, 1]
            most = _COMPACT_BELOW * len(context) if context.copies else len(context)
            if more or len(np.unique(parents)) < len(parents) or len(parents) < most:
                context.keep(torch.from_numpy(parents).to(device), self._room(going_N) + 1)
                row_N = branch_N.reshape(-1)
            else:  # no row forks; ended rows get an arbitrary token
                next_tokens = np.zeros(len(context), dtype=sampled_N.dtype)
                next_tokens[row_N] = sampled_N
            # compute the tokens, and add the new prompts
            logits_BV = context.next_logits(torch.from_numpy(next_tokens).to(device))
            self.num_computed += len(context)
            if more:
                assert isinstance(context, BlockContext)
                row_N = np.concatenate([row_N, len(context) + more.row_N])
                context.admit(more.prompts)
                logits_BV = torch.cat([logits_BV, more.logits_PV])
                going_N = np.concatenate([going_N, self._admit(more.prefixes, more.keys, max(self.most))])

    def _going(self) -> np.ndarray:
        """Return the numbers of the active completions."""
        return np.array([i for i in range(len(self.prefixes)) if self._goes_on(i)], dtype=np.int64)

    def _goes_on(self, completion: int) -> bool:
        return self.finish[completion] is None and completion not in self.paused and len(self.tokens[completion]) < self.most[completion]

    def _room(self, going_N: np.ndarray) -> int:
        """Return the largest number of tokens that one of them may still get."""
        return max(self.most[i] - len(self.tokens[i]) for i in going_N.tolist())

    def _counts(self, going_N: np.ndarray) -> np.ndarray:
        return np.array([len(self.tokens[i]) for i in going_N.tolist()])

    def _protect(self, context: BlockContext, completions: list[int], rows: list[int]) -> None:
        """Protect the keys and values of ended completions, whose rows are removed."""
        slots, lengths = context.protect(rows)
        self._protected |= dict(zip(completions, zip(slots, lengths, strict=True), strict=True))

    def _kept(self, context: Context) -> list[Segment]:
        assert isinstance(context, BlockContext)
        places = list(dict.fromkeys(self._protected.values()))
        blocks = context.own.only(torch.tensor([slot for slot, _ in places]), max(1, max(length for _, length in places)))
        return [Segment(blocks, places.index(self._protected[i]), self._protected[i][1]) for i in range(len(self.prefixes))]

    def hand_out(self, places: Iterable[int]) -> None:
        """Report completions that have ended."""
        if self.on_complete:
            for place in places:
                self.on_complete(place, self._result(place))

    def results(self) -> list[Prefix]:
        return [self._result(place) for place in range(len(self.prefixes))]

    def _result(self, place: int) -> Prefix:
        prefix = self.prefixes[place]
        return Prefix(
            tokens=(*prefix.tokens, *self.tokens[place]),
            policy_version=prefix.policy_version,
            own_logprobs=(*prefix.own_logprobs, *self.logprobs[place]),
            finish=self.finish[place],
        )

    def _record(self, rows: list[int], tokens: list[int], logprobs: list[float]) -> None:
        for row, token, logprob in zip(rows, tokens, logprobs, strict=True):
            if self.finish[row] is not None:
                continue
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
            if self.on_token:
                self.on_token(row, token)
            if token in self.until.tokens or self._ends_with_string(row):
                self.finish[row] = "stop"
            elif self.until.pause and self.until.pause.search(self.decode(self.tokens[row])):
                self.paused.add(row)

    def _ends_with_string(self, row: int) -> bool:
        if not self.until.strings:
            return False
        longest = max(len(string.encode()) for string in self.until.strings)  # a token may be a single byte
        before = self.prefixes[row].own_tokens  # where a stop string may have begun
        own_tokens = [*before[max(0, len(before) - longest + 1) :], *self.tokens[row]]
        tails = [self.decode(own_tokens[-(longest + 4) :], shows_special=shows) for shows in (False, True)]
        return any(string in tail for string in self.until.strings for tail in tails)


def _check_finite(logprobs: Sequence[float]) -> None:
    if not math.isfinite(sum(logprobs)):
        raise UserError(
            "the model's next-token logits are not finite: its weights are damaged, or training drove them too far; "
            "lower the learning rate, or use an earlier checkpoint"
        )
