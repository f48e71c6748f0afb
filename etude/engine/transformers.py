"""The default engine: any decoder-only transformers model that takes a cache, on a CPU or a GPU.

A prompt is computed once however many samples it gets: `open` prefills distinct prompts, `extend` decodes all samples as one batch, which
on a CPU reads a prompt once for all of its samples (`etude.engine.context`). Samples that have drawn the same tokens so far share a row,
which forks where they part; finished rows leave. Random numbers are keyed per attempt and position (`etude.randomness`), so an attempt does
not depend on what is sampled beside it; in float32 exactly up to rounding of the matrix products, in bfloat16 another batch shape can flip
a token.

A second engine offers the same `open`, `extend`, `release`, `generate` and `refresh`.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.adapters import base_of, has_adapters
from etude.engine.completion import Completion, Finish, Prefix, Stop
from etude.engine.context import Context, CopiedContext, Opened
from etude.engine.forward import forward_of
from etude.engine.sampling import Sampling, sample
from etude.engine.working_copy import WorkingCopy
from etude.errors import UserError
from etude.randomness import seed_for, uniforms

_COMPACT_BELOW = 0.75
"""Finished rows leave the batch when fewer than this share of the rows are still going (and whenever a row forks)."""


@dataclass
class _OpenBatch:
    """Some prompts that were prefilled together, and the logits of what follows them."""

    context: Opened
    logits_BV: torch.Tensor


@dataclass(frozen=True)
class _Row:
    """One prompt's place in an open batch."""

    batch: _OpenBatch | None
    """None for a prefix with own tokens: its keys and values are computed anew when it is extended."""
    row: int


class TransformersEngine:
    """Prefixes → tokens with behaviour log-probs, on top of a transformers model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype = torch.float32,
        batch_tokens: int = 16384,
    ) -> None:
        """`dtype` is the precision of the working copy (float32 without adapters samples from `model` itself, without a copy);
        `batch_tokens` bounds the cache positions (rows x length) that are decoded together.
        """
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self.policy_version = 0
        base = base_of(model)
        if "past_key_values" not in inspect.signature(base.forward).parameters:
            raise UserError(
                f"{type(base).__name__} takes no cache (past_key_values), so it can't be sampled from here: "
                "take an attention or hybrid model"
            )
        self._copy = None if dtype == torch.float32 and not has_adapters(model) else WorkingCopy(model, dtype)
        self._model: PreTrainedModel = self._copy.model if self._copy else base
        self._device = next(base.parameters()).device
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or []
        own_end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
        self.end_tokens = frozenset([*ends, *own_end])
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(self.end_tokens), 0)
        self._shared = forward_of(base, self._model)

    def refresh(self, policy_version: int) -> None:
        """Take over the master's weights after an update; prefixes of earlier versions die."""
        self.policy_version = policy_version
        if self._copy:
            self._copy.refresh()
        if self._shared:
            self._shared.forward.refresh()

    # ------------------------------------------------------------------ the three verbs

    @torch.inference_mode()
    def open(self, prompts: Sequence[Sequence[int]]) -> list[Prefix]:
        """Prefill the prompts as one batch; returns one prefix for each, in order."""
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt needs at least one token")
        batch = _OpenBatch(*(self._shared.prefill(prompts) if self._shared else self._prefill_copied(prompts)))
        return [
            Prefix(tokens=tuple(prompt), policy_version=self.policy_version, cached=_Row(batch, row)) for row, prompt in enumerate(prompts)
        ]

    @torch.inference_mode()
    def extend(self, prefixes: Sequence[Prefix], n: int, *, until: Stop, sampling: Sampling, keys: Sequence[int]) -> list[Prefix]:
        """Sample up to `n` more own tokens for each prefix (the same one may be named many times), one key each.

        The random number of an own token is drawn from the prefix's key and the token's place among the own tokens. Raises
        `ValueError` for a finished, released or stale prefix.
        """
        for prefix in prefixes:
            self._check_alive(prefix)
        batches = {id(prefix.cached.batch) for prefix in prefixes}
        if len(batches) > 1 or any(prefix.cached.batch is None for prefix in prefixes):
            prefixes = self._reopen(prefixes)
        distinct, row_N = np.unique([prefix.cached.row for prefix in prefixes], return_inverse=True)
        rows = torch.from_numpy(distinct).to(self._device)
        source: _OpenBatch = prefixes[0].cached.batch
        decoding = _Decoding(self, prefixes, until, sampling, np.array(keys, dtype=np.uint64))
        decoding.run(source.context.begin(rows, n, samples=len(prefixes)), source.logits_BV[rows], row_N, n)
        return decoding.results()

    def release(self, prefixes: Sequence[Prefix]) -> None:
        """Give the prefixes' memory back; the last prefix of a batch frees it."""
        for prefix in prefixes:
            prefix.cached = None

    # ------------------------------------------------------------------ built on them

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[Sequence[int]] | None = None,
        stop_strings: Sequence[str] = (),
        view: None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of every prompt, token ids in and out.

        `keys` (one for each prompt and sample) fix the random numbers; without them they are hashed from `seed`, the prompt's place
        and the sample's number. `view` is the place where cache policies attach; None is the full context.
        """
        assert view is None, "views attach with the long-context policies"
        if keys is None:
            keys = [[seed_for(seed, i, j) for j in range(num_samples)] for i in range(len(prompts))]
        until = Stop(self.end_tokens, tuple(stop_strings))
        found: list[list[Completion]] = [[] for _ in prompts]
        for chunk in self._chunks(prompts, num_samples, max_new_tokens):
            opened = self.open([prompts[i] for i in chunk])
            wanted = [(i, prefix, key) for i, prefix in zip(chunk, opened, strict=True) for key in keys[i]]
            rows = self._samples_at_once(len(prompts[chunk[0]]), max_new_tokens)
            for part in (wanted[start : start + rows] for start in range(0, len(wanted), rows)):
                prefixes, part_keys = [prefix for _, prefix, _ in part], [key for _, _, key in part]
                extended = self.extend(prefixes, max_new_tokens, until=until, sampling=sampling, keys=part_keys)
                for (i, _, key), prefix in zip(part, extended, strict=True):
                    found[i].append(self._completion(prefix, key, stop_strings))
            self.release(opened)
        return found

    def _chunks(self, prompts: Sequence[Sequence[int]], num_samples: int, max_new_tokens: int) -> Iterator[list[int]]:
        """Places of prompts of like length, longest first, whose samples fit into `batch_tokens` positions together; of one prompt at
        least, whose samples are then decoded in parts.
        """
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        while order:
            longest, own = len(prompts[order[0]]), max(1, num_samples) * max_new_tokens
            each = longest + own if self._shared else longest * max(1, num_samples) + own
            count = max(1, self.batch_tokens // each)
            yield order[:count]
            order = order[count:]

    def _samples_at_once(self, prompt_tokens: int, max_new_tokens: int) -> int:
        """Of one prompt, which takes its positions once where it is shared."""
        if self._shared:
            return max(1, (self.batch_tokens - prompt_tokens) // max_new_tokens)
        return max(1, self.batch_tokens // (prompt_tokens + max_new_tokens))

    def _completion(self, prefix: Prefix, key: int, stop_strings: Sequence[str]) -> Completion:
        text = self._decode(prefix.own_tokens)
        places = [text.find(string) for string in stop_strings if string in text]
        return Completion(
            tokens=prefix.own_tokens,
            logprobs=prefix.own_logprobs,
            text=text[: min(places)] if places else text,
            finish=prefix.finish or "length",
            key=key,
            policy_version=prefix.policy_version,
        )

    def _decode(self, tokens: Sequence[int], *, shows_special: bool = False) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=not shows_special)
        assert isinstance(text, str)
        return text

    def _prefill_copied(self, prompts: Sequence[Sequence[int]]) -> tuple[CopiedContext, torch.Tensor]:
        return CopiedContext.prefill(self._model, prompts, self._pad)

    def _reopen(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Prefixes of several batches, or with own tokens, are prefilled anew as one batch (each distinct token row once)."""
        distinct = list(dict.fromkeys(prefix.tokens for prefix in prefixes))
        opened = dict(zip(distinct, self.open(distinct), strict=True))
        return [
            Prefix(prefix.tokens, prefix.policy_version, prefix.own_logprobs, cached=opened[prefix.tokens].cached) for prefix in prefixes
        ]

    def _check_alive(self, prefix: Prefix) -> None:
        if prefix.finish is not None:
            raise ValueError(f"a finished prefix ({prefix.finish}) can't be extended")
        if prefix.cached is None:
            raise ValueError("a released prefix can't be extended")
        if prefix.policy_version != self.policy_version:
            raise ValueError(f"the prefix belongs to policy version {prefix.policy_version}, the engine is at {self.policy_version}")


class _Decoding:
    """One batch being decoded: what each row has so far, and which rows are still going."""

    def __init__(self, engine: TransformersEngine, prefixes: Sequence[Prefix], until: Stop, sampling: Sampling, keys_B: np.ndarray) -> None:
        self.engine, self.prefixes, self.until, self.sampling, self.keys_B = engine, prefixes, until, sampling, keys_B
        self.tokens: list[list[int]] = [[] for _ in prefixes]
        self.logprobs: list[list[float]] = [[] for _ in prefixes]
        self.finish: list[Finish | None] = [None] * len(prefixes)
        self.own_before_B = np.array([len(prefix.own_logprobs) for prefix in prefixes])

    def run(self, context: Context, logits_BV: torch.Tensor, row_N: np.ndarray, n: int) -> None:
        """`row_N`: the row of the batch that each of the N completions continues; completions with the same tokens so far share one."""
        going_N = np.arange(len(self.prefixes))  # which completions are still going
        for step in range(n):
            device = logits_BV.device
            uniform_N = torch.from_numpy(uniforms(self.keys_B[going_N], self.own_before_B[going_N] + step)).to(device)
            tokens_N, logprobs_N = sample(logits_BV, self.sampling, uniform_N, torch.from_numpy(row_N).to(device))
            drawn_N, logprobs = tokens_N.cpu().numpy(), logprobs_N.tolist()
            if not math.isfinite(sum(logprobs)):
                raise UserError(
                    "the model's next-token logits are not finite: its weights are damaged, or training drove them too far; "
                    "lower the learning rate, or use an earlier checkpoint"
                )
            self._record(going_N, drawn_N.tolist(), logprobs)
            is_going_N = np.array([self.finish[completion] is None for completion in going_N])
            if step == n - 1 or not is_going_N.any():
                return
            going_N, row_N, drawn_N = going_N[is_going_N], row_N[is_going_N], drawn_N[is_going_N]
            branches, branch_N = np.unique(np.stack([row_N, drawn_N], axis=1), axis=0, return_inverse=True)
            parents, next_tokens = branches[:, 0], branches[:, 1]
            if len(np.unique(parents)) < len(parents) or len(parents) < _COMPACT_BELOW * len(context):
                context.keep(torch.from_numpy(parents).to(device), n - step)
                row_N = branch_N.reshape(-1)
            else:  # every row goes on as at most one; those that are over take any token along
                next_tokens = np.zeros(len(context), dtype=drawn_N.dtype)
                next_tokens[row_N] = drawn_N
            logits_BV = context.next_logits(torch.from_numpy(next_tokens).to(device))

    def results(self) -> list[Prefix]:
        return [
            Prefix(
                tokens=(*prefix.tokens, *tokens),
                policy_version=prefix.policy_version,
                own_logprobs=(*prefix.own_logprobs, *logprobs),
                finish=finish,
                cached=None if finish else _Row(None, 0),
            )
            for prefix, tokens, logprobs, finish in zip(self.prefixes, self.tokens, self.logprobs, self.finish, strict=True)
        ]

    def _record(self, rows: np.ndarray, tokens: list[int], logprobs: list[float]) -> None:
        for row, token, logprob in zip(rows.tolist(), tokens, logprobs, strict=True):
            if self.finish[row] is not None:
                continue
            self.tokens[row].append(token)
            self.logprobs[row].append(logprob)
            if token in self.until.tokens or self._ends_with_string(row):
                self.finish[row] = "stop"

    def _ends_with_string(self, row: int) -> bool:
        if not self.until.strings:
            return False
        longest = max(len(string.encode()) for string in self.until.strings)  # a token may be a single byte
        before = self.prefixes[row].own_tokens  # a stop string may have begun there
        own_tokens = [*before[max(0, len(before) - longest + 1) :], *self.tokens[row]]
        tails = [self.engine._decode(own_tokens[-(longest + 4) :], shows_special=shows) for shows in (False, True)]
        return any(string in tail for string in self.until.strings for tail in tails)
