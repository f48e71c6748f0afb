"""Token by token: one batch of completions being decoded from a context."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Stretch
from etude.engine.completion import Finish, Prefix, Stop
from etude.engine.context import Context
from etude.engine.sampling import Sampling, sample
from etude.errors import UserError
from etude.randomness import uniforms

_COMPACT_BELOW = 0.75
"""Where leaving copies the others, finished rows leave when fewer than this share are still going (and whenever a row forks)."""


@dataclass(frozen=True)
class More:
    """Prompts that join a batch while it is decoded."""

    prompts: BlockPrompts
    logits_PV: torch.Tensor
    """Of what follows them."""
    prefixes: Sequence[Prefix]
    """Completions of them, as many as have ended at most."""
    row_N: np.ndarray
    """Which of the prompts each continues."""
    keys: Sequence[int]


Refill = Callable[[int], More | None]
"""How many completions go on → what may join them."""

Done = Callable[[int, Prefix], None]
"""What is told of a completion that gets no more tokens: its place in the batch, and what it is."""


Heard = Callable[[int, int], None]
"""What is told of every token as it is drawn: the place of its completion, and which it is."""


class Decoding:
    """One batch being decoded: what each row has so far, and which rows are still going."""

    def __init__(
        self,
        prefixes: Sequence[Prefix],
        n: int | Sequence[int],
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        decode: Callable[..., str],
        done: Done | None = None,
        *,
        keeps: bool = False,
        heard: Heard | None = None,
    ) -> None:
        """Up to `n` more tokens for each prefix (one number for all, or one each); `decode(tokens, shows_special)` gives their text.

        `done` is called once for each, as soon as it gets no more. With `keeps`, what is behind those that a `BlockContext` decodes stays
        when it is through, in `drawn`.
        """
        self.until, self.sampling, self.decode, self.done, self.keeps = until, sampling, decode, done, keeps
        self.heard = heard
        self.num_computed = 0
        """Tokens that were given to the model."""
        self.drawn: list[Stretch] = []
        """Of every completion the keys and values of its tokens in this batch that were computed, all but the last; empty if not kept."""
        self._held: dict[int, tuple[int, int]] = {}
        self.prefixes: list[Prefix] = []
        self.tokens: list[list[int]] = []
        self.logprobs: list[list[float]] = []
        self.finish: list[Finish | None] = []
        self.paused: set[int] = set()
        self.keys_B = np.zeros(0, dtype=np.uint64)
        self.own_before_B = np.zeros(0, dtype=np.int64)
        self.most: list[int] = []
        """Tokens that each may get."""
        self._admit(prefixes, keys, n)

    def _admit(self, prefixes: Sequence[Prefix], keys: Sequence[int], n: int | Sequence[int]) -> np.ndarray:
        """More completions; returns their numbers."""
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
        """`row_N`: the row of the batch that each completion that goes on continues; those with the same tokens so far share one.

        `refill` gives others to decode beside them, as completions end, where the context is a `BlockContext`.
        """
        going_N, device = self._going(), logits_BV.device
        while True:
            uniform_N = torch.from_numpy(uniforms(self.keys_B[going_N], self.own_before_B[going_N] + self._counts(going_N))).to(device)
            tokens_N, logprobs_N = sample(logits_BV, self.sampling, uniform_N, torch.from_numpy(row_N).to(device))
            drawn_N, logprobs = tokens_N.cpu().numpy(), logprobs_N.tolist()
            _check_finite(logprobs)
            self._record(going_N.tolist(), drawn_N.tolist(), logprobs)
            is_going_N = np.array([self._goes_on(i) for i in going_N.tolist()])
            self.hand_out(going_N[~is_going_N].tolist())
            if self.keeps and isinstance(context, BlockContext):
                self._hold(context, going_N[~is_going_N].tolist(), row_N[~is_going_N].tolist())
            if not is_going_N.any():
                self.drawn = self._kept(context) if self._held else []
                return
            going_N, row_N, drawn_N = going_N[is_going_N], row_N[is_going_N], drawn_N[is_going_N]
            more = refill(len(going_N)) if refill and isinstance(context, BlockContext) else None
            branches, branch_N = np.unique(np.stack([row_N, drawn_N], axis=1), axis=0, return_inverse=True)
            parents, next_tokens = branches[:, 0], branches[:, 1]
            most = _COMPACT_BELOW * len(context) if context.copies else len(context)
            if more or len(np.unique(parents)) < len(parents) or len(parents) < most:
                context.keep(torch.from_numpy(parents).to(device), self._room(going_N) + 1)
                row_N = branch_N.reshape(-1)
            else:  # every row goes on as at most one; those that are over take any token along
                next_tokens = np.zeros(len(context), dtype=drawn_N.dtype)
                next_tokens[row_N] = drawn_N
            logits_BV = context.next_logits(torch.from_numpy(next_tokens).to(device))
            self.num_computed += len(context)
            if more:
                assert isinstance(context, BlockContext)
                row_N = np.concatenate([row_N, len(context) + more.row_N])
                context.admit(more.prompts)
                logits_BV = torch.cat([logits_BV, more.logits_PV])
                going_N = np.concatenate([going_N, self._admit(more.prefixes, more.keys, max(self.most))])

    def _going(self) -> np.ndarray:
        """Which completions are neither over nor as long as they may be."""
        return np.array([i for i in range(len(self.prefixes)) if self._goes_on(i)], dtype=np.int64)

    def _goes_on(self, completion: int) -> bool:
        return self.finish[completion] is None and completion not in self.paused and len(self.tokens[completion]) < self.most[completion]

    def _room(self, going_N: np.ndarray) -> int:
        """Tokens that one of them may still get."""
        return max(self.most[i] - len(self.tokens[i]) for i in going_N.tolist())

    def _counts(self, going_N: np.ndarray) -> np.ndarray:
        return np.array([len(self.tokens[i]) for i in going_N.tolist()])

    def _hold(self, context: BlockContext, completions: list[int], rows: list[int]) -> None:
        """What these have behind them beside their prompts stays where it is."""
        slots, lengths = context.hold(rows)
        self._held |= dict(zip(completions, zip(slots, lengths, strict=True), strict=True))

    def _kept(self, context: Context) -> list[Stretch]:
        assert isinstance(context, BlockContext)
        places = list(dict.fromkeys(self._held.values()))
        blocks = context.own.only(torch.tensor([slot for slot, _ in places]), max(1, max(length for _, length in places)))
        return [Stretch(blocks, places.index(self._held[i]), self._held[i][1]) for i in range(len(self.prefixes))]

    def hand_out(self, places: Iterable[int]) -> None:
        """These get no more tokens."""
        if self.done:
            for place in places:
                self.done(place, self._result(place))

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
            if self.heard:
                self.heard(row, token)
            if token in self.until.tokens or self._ends_with_string(row):
                self.finish[row] = "stop"
            elif self.until.pause and self.until.pause.search(self.decode(self.tokens[row])):
                self.paused.add(row)

    def _ends_with_string(self, row: int) -> bool:
        if not self.until.strings:
            return False
        longest = max(len(string.encode()) for string in self.until.strings)  # a token may be a single byte
        before = self.prefixes[row].own_tokens  # a stop string may have begun there
        own_tokens = [*before[max(0, len(before) - longest + 1) :], *self.tokens[row]]
        tails = [self.decode(own_tokens[-(longest + 4) :], shows_special=shows) for shows in (False, True)]
        return any(string in tail for string in self.until.strings for tail in tails)


def _check_finite(logprobs: Sequence[float]) -> None:
    if not math.isfinite(sum(logprobs)):
        raise UserError(
            "the model's next-token logits are not finite: its weights are damaged, or training drove them too far; "
            "lower the learning rate, or use an earlier checkpoint"
        )
