"""The default engine: runs any decoder-only transformers model whose whole state is in its cache, on a CPU or a GPU.

Each prompt is computed once for all of its samples. `open` prefills distinct prompts. `extend` decodes all samples as one batch; on a CPU
it reads a prompt once for all of its samples (`etude.engine.blocks`). Samples with the same tokens so far share a row, which forks where
they differ. Waiting prompts replace finished rows (continuous batching). Random numbers are keyed by completion and position
(`etude.randomness`), so a completion does not depend on the rest of its batch: in float32 up to rounding of the matrix products; in
bfloat16 another batch shape can flip a token.

The contract of the public methods is `etude.engine.protocols.PrefixEngine`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.engine.blocks import BlockContext, BlockPrompts, length_of
from etude.engine.cache import cache_argument
from etude.engine.completion import Completion, JointCompletion, Prefix, Stop
from etude.engine.continuous import ContinuousBatch
from etude.engine.copied import CopiedContext
from etude.engine.decoding import AdmittedPrompts, DecodingBatch, Refill
from etude.engine.forward import check_copies, find_forward
from etude.engine.heap import pin_malloc_thresholds
from etude.engine.joint import JointContext, product
from etude.engine.prefixes import (
    Generated,
    PrefilledBatch,
    PrefilledRow,
    batch_prefixes,
    cut,
    deduplicate,
    is_one_batch,
    keep_segments,
    segments_of,
)
from etude.engine.protocols import Context, Join, OnCompletions, OnPrefix, OnSampledToken, OnToken, PrefilledPrompts, View
from etude.engine.sampling import Sampling
from etude.engine.working_copy import WorkingCopy
from etude.models.adapters import base_of, has_adapters
from etude.models.load import end_tokens, max_positions
from etude.randomness import seed_for

_REFILL_FROM = 0.25
"""Share of a batch's completions that must be finished before waiting prompts join: several prompts at a time are computed faster."""


class TransformersEngine:
    """A `PrefixEngine` on top of a transformers model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype = torch.float32,
        batch_tokens: int = 32768,
        view: View | None = None,
    ) -> None:
        """Prepare to sample from `model`. `dtype`: the precision of the working copy; float32 without adapters samples from `model` itself.
        `batch_tokens`: the maximum of cache positions (rows x length) decoded together. `view`: the default KV cache policy of all calls;
        None: the full cache.

        Raises UserError for a model that takes no cache, or keeps part of its state outside of it.
        """
        pin_malloc_thresholds()
        self.tokenizer = tokenizer
        self.batch_tokens, self.view = batch_tokens, view
        self.policy_version = 0
        self.computed_tokens = 0
        """Number of tokens that the model has computed so far, in prompts and completions."""
        base = base_of(model)
        self.positions = max_positions(base)
        """Maximum length of a prompt and its completion together, in tokens."""
        cache_argument(base)  # raises for a model that takes no cache
        self._copy = None if dtype == torch.float32 and not has_adapters(model) else WorkingCopy(model, dtype)
        self._model: PreTrainedModel = self._copy.model if self._copy else base
        self._device = next(base.parameters()).device
        self.end_tokens = end_tokens(self._model, tokenizer)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(self.end_tokens), 0)
        self._shared = find_forward(base, self._model)
        if self._shared is None:
            check_copies(base)
        self._is_offloaded = False

    def offload_weights(self) -> None:
        """Free the memory of weights that `sync_weights` recreates. Sampling is not possible until then."""
        self._is_offloaded = True
        if self._copy:
            self._copy.offload_weights()
        if self._shared:
            self._shared.forward.offload_weights()

    def sync_weights(self, policy_version: int) -> None:
        """Load the master's weights after an update. Prefixes of earlier versions can no longer be extended."""
        self.policy_version, self._is_offloaded = policy_version, False
        if self._copy:
            self._copy.sync_weights()
        if self._shared:
            self._shared.forward.sync_weights()

    # ------------------------------------------------------------------ prefixes

    @torch.inference_mode()
    def open(self, prompts: Sequence[Sequence[int]], after: Sequence[Prefix] | None = None, *, view: View | None = None) -> list[Prefix]:
        """Prefill the prompts as one batch (`PrefixEngine.open`)."""
        self._check_loaded()
        if after and (view or any(prefix.view != self.view for prefix in after)):
            raise ValueError("a view opens whole prompts: what it opened can't follow a prefix, and nothing can follow it")
        view = view or self.view
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt needs at least one token")
        for prefix in after or ():
            self._check_held(prefix)
        # compute only the tokens after the cached ones, where those can be reused
        paths = [segments_of(prefix) for prefix in after or () if not view]
        before = [prefix.tokens for prefix in after] if after else [()] * len(prompts)
        inputs = [(*given, *prompt) for given, prompt in zip(before, prompts, strict=True)]
        if any(paths):
            assert self._shared
            new = [tokens[length_of(path) :] for tokens, path in zip(inputs, paths, strict=True)]
            batch = PrefilledBatch(*BlockPrompts.prefill(self._shared.forward, new, paths))
        else:
            new = inputs
            batch = PrefilledBatch(*self._prefill(new, view))
        self.computed_tokens += sum(map(len, new))
        return [Prefix(tokens, self.policy_version, view=view, cached=PrefilledRow(batch, row)) for row, tokens in enumerate(inputs)]

    @torch.inference_mode()
    def extend(
        self,
        prefixes: Sequence[Prefix],
        n: int | Sequence[int],
        *,
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        on_complete: OnPrefix | None = None,
        refill: Refill | None = None,
        keeps: bool = True,
        on_token: OnToken | None = None,
    ) -> list[Prefix]:
        """Sample up to `n` more own tokens for each prefix (`PrefixEngine.extend`).

        `refill` returns prompts that replace completions that ended; their results come last. With `keeps`, extending the results computes
        nothing again. Where the kernels can't keep prompts (`etude.engine.blocks`), all tokens are computed again; under an evicting view
        they are then read as a prompt, of which another part is kept than of generated tokens.
        """
        self._check_loaded()
        for prefix in prefixes:
            self._check_alive(prefix)
        if keeps and refill:
            raise ValueError("keys and values are kept of what does not make room for others: keeps or refill, not both")
        prefixes = prefixes if is_one_batch(prefixes) or all(map(segments_of, prefixes)) else self._reopen(prefixes)
        # check the token limits
        decoding = DecodingBatch(prefixes, n, until, sampling, keys, self._decode, on_complete, keeps=keeps, on_token=on_token)
        room = max(decoding.most)
        if min(decoding.most) == 0 < room:
            raise ValueError("n is 0 for some of the prefixes and not for others: leave those out")
        if room == 0:
            decoding.hand_out(range(len(prefixes)))
            return self._extended(decoding)
        # decode from one row for each distinct prefix
        before = deduplicate(prefixes)
        context, logits_BV, row_N = self._begin(before, room, keeps)
        decoding.run(context, logits_BV, row_N, refill)
        self.computed_tokens += decoding.num_computed
        extended = self._extended(decoding)
        if decoding.kept:
            keep_segments(extended, before, decoding.kept, [logits_BV[row] for row in row_N.tolist()])
        return extended

    @torch.inference_mode()
    def extend_joint(
        self,
        groups: Sequence[Sequence[Prefix]],
        n: int,
        *,
        sampling: Sampling,
        keys: Sequence[int],
        join: Join = product,
        weights: Sequence[Sequence[float]] | None = None,
        stop_strings: Sequence[str] = (),
        on_token: OnToken | None = None,
    ) -> list[JointCompletion]:
        """Sample one answer of up to `n` tokens to each group of prefixes (`PrefixEngine.extend_joint`).

        A prefix that is in a group twice counts twice and is computed once. Random numbers are those of a prompt with the same key, so the
        answer to a group of one equals the result of `generate`.
        """
        self._check_loaded()
        if not all(groups):
            raise ValueError("a group needs at least one prefix")
        flat = [prefix for group in groups for prefix in group]
        for prefix in flat:
            self._check_alive(prefix)
        flat = flat if is_one_batch(flat) or all(map(segments_of, flat)) else self._reopen(flat)
        # decode each group as one row, over the joined distributions of its prefixes
        context, logits_BV, row_N = self._begin(deduplicate(flat), n, False)
        weights = weights or [[1 / len(group)] * len(group) for group in groups]
        joint, rows_B = JointContext.of(context, row_N, weights, join, n, self._device)
        empty = [Prefix((), self.policy_version) for _ in groups]
        decoding = DecodingBatch(empty, n, Stop(self.end_tokens, tuple(stop_strings)), sampling, keys, self._decode, on_token=on_token)
        decoding.run(joint, joint.joined(logits_BV[rows_B]), np.arange(len(groups)))
        self.computed_tokens += joint.computed_tokens
        found = [self.completion(prefix, key, stop_strings) for prefix, key in zip(decoding.results(), keys, strict=True)]
        return [JointCompletion(replace(each, view="joint"), joint.agreement(number, each.tokens)) for number, each in enumerate(found)]

    def _begin(self, prefixes: Sequence[Prefix], n: int, keeps: bool) -> tuple[Context, torch.Tensor, np.ndarray]:
        """Create one row for each distinct prefix; returns the rows, the logits [B, V] after them, and the row of each prefix."""
        if is_one_batch(prefixes):
            distinct, row_N = np.unique([prefix.cached.row for prefix in prefixes], return_inverse=True)
            rows, source = torch.from_numpy(distinct).to(self._device), prefixes[0].cached.batch
            context = source.context.begin(rows, n, samples=len(prefixes))
            if isinstance(context, BlockContext):
                context.keeps_hidden = keeps
            return context, source.logits_BV[rows], row_N
        assert self._shared
        context, logits_BV, row_N, computed = batch_prefixes(self._shared.forward, prefixes, n, keeps=keeps)
        self.computed_tokens += computed
        return context, logits_BV, row_N

    @property
    def shares_prompts(self) -> bool:
        """Whether the cache holds a common prefix once for all of its extensions."""
        return self._shared is not None and not self.view

    def cut(self, prefix: Prefix, num_own_tokens: int) -> Prefix:
        """Return the prefix after its first `num_own_tokens` own tokens (at least 1). Where a forward pass keeps no hidden states
        (`etude.engine.modules`), its last token is computed again, once.
        """
        return replace(cut(prefix, num_own_tokens), view=prefix.view)

    def release(self, prefixes: Sequence[Prefix]) -> None:
        """Free the cache of these prefixes; the last prefix of a batch frees the batch."""
        for prefix in prefixes:
            prefix.cached = None

    def continuous(self, *, most_rows: int, most_new_tokens: int) -> ContinuousBatch | None:
        """Return an empty batch that requests join and leave at any token; None where prompts can't join (`etude.engine.blocks`)."""
        self._check_loaded()
        if self._shared is None or self._shared.prompts is not BlockPrompts:
            return None
        sizes = {"most_rows": most_rows, "most_new_tokens": most_new_tokens}
        return ContinuousBatch(self._shared, self._decode, self.end_tokens, **sizes)

    # ------------------------------------------------------------------ completions of prompts

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
        on_complete: OnCompletions | None = None,
        view: View | None = None,
        on_token: OnSampledToken | None = None,
    ) -> list[list[Completion]]:
        """Sample `num_samples` completions of every prompt (`PrefixEngine.generate`)."""
        if keys is None:
            keys = [[seed_for(seed, i, j) for j in range(num_samples)] for i in range(len(prompts))]
        view = view or self.view
        until = Stop(self.end_tokens, tuple(stop_strings))
        found: list[dict[int, Completion]] = [{} for _ in prompts]
        waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        while waiting:
            # prefill the longest waiting prompts, as many as fit into a batch with their samples
            count = self._chunk_size(len(prompts[waiting[0]]), num_samples, max_new_tokens, view)
            chunk, waiting[:] = waiting[:count], waiting[count:]
            wanted = [(i, sample, keys[i][sample]) for i in chunk for sample in range(len(keys[i]))]
            opened = dict(zip(chunk, self.open([prompts[i] for i in chunk], view=view), strict=True))
            # decode their samples, all at once unless one prompt has too many
            is_shared = self._shared is not None and not view
            rows = self._samples_at_once(len(prompts[chunk[0]]), max_new_tokens, view, is_shared=is_shared)
            for part in (wanted[start : start + rows] for start in range(0, len(wanted), rows)):

                def keep(place: int, prefix: Prefix, part: list[tuple[int, int, int]] = part) -> None:
                    i, sample, key = part[place]
                    found[i][sample] = replace(self.completion(prefix, key, stop_strings), view=view.name if view else "full")
                    if on_complete and len(found[i]) == len(keys[i]):
                        on_complete(i, _in_order(found[i]))

                def tell(place: int, token: int, part: list[tuple[int, int, int]] = part) -> None:
                    if on_token:
                        on_token(*part[place][:2], token)

                self.extend(
                    [opened[i] for i, _, _ in part],
                    max_new_tokens,
                    until=until,
                    sampling=sampling,
                    keys=[key for _, _, key in part],
                    on_complete=keep,
                    refill=self._refill_from(waiting, prompts, keys, part) if len(wanted) <= rows and not view else None,
                    keeps=False,
                    on_token=tell if on_token else None,
                )
            self.release(list(opened.values()))
        return [_in_order(completions) for completions in found]

    def _chunk_size(self, longest: int, num_samples: int, max_new_tokens: int, view: View | None) -> int:
        """Return how many prompts of up to this length fit into `batch_tokens` positions with their samples. It is at least 1: the samples
        of a prompt that does not fit are decoded in parts.
        """
        if view:
            held = max(1, num_samples) * view.held_tokens(longest, max_new_tokens)
            return max(1, min(self.batch_tokens // held, self.batch_tokens // longest))  # prompts are read in full
        own = max(1, num_samples) * max_new_tokens
        each = longest + own if self._shared else longest * max(1, num_samples) + own
        return max(1, self.batch_tokens // each)

    def _refill_from(
        self, waiting: list[int], prompts: Sequence[Sequence[int]], keys: Sequence[Sequence[int]], part: list[tuple[int, int, int]]
    ) -> Refill:
        """Return a function that admits waiting prompts, which are not longer than the decoded ones, once a share of `_REFILL_FROM` of the
        completions of `part` has ended. It appends the new samples to `part`.
        """
        capacity = len(part)

        def refill(going: int) -> AdmittedPrompts | None:
            fitting = accumulate(len(keys[i]) for i in waiting)  # prompts may have different numbers of samples
            number = sum(taken <= capacity - going for taken in fitting)
            if number == 0 or capacity - going < _REFILL_FROM * capacity:
                return None
            chosen, waiting[:] = waiting[:number], waiting[number:]
            assert self._shared is not None
            opened, logits_PV = self._shared.prefill([prompts[i] for i in chosen])
            self.computed_tokens += sum(len(prompts[i]) for i in chosen)
            assert isinstance(opened, BlockPrompts)
            wanted = [(i, sample, key) for i in chosen for sample, key in enumerate(keys[i])]
            part.extend(wanted)
            row_of = {i: row for row, i in enumerate(chosen)}
            prefixes = [Prefix(tuple(prompts[i]), self.policy_version) for i, _, _ in wanted]
            return AdmittedPrompts(opened, logits_PV, prefixes, np.array([row_of[i] for i, _, _ in wanted]), [key for _, _, key in wanted])

        return refill

    def _samples_at_once(self, prompt_tokens: int, max_new_tokens: int, view: View | None, *, is_shared: bool) -> int:
        """Return how many samples of one prompt fit into `batch_tokens`; a shared prompt counts once."""
        if is_shared:
            return max(1, (self.batch_tokens - prompt_tokens) // max(1, max_new_tokens))
        held = view.held_tokens(prompt_tokens, max_new_tokens) if view else prompt_tokens + max_new_tokens
        return max(1, self.batch_tokens // held)

    def completion(self, prefix: Prefix, key: int, stop_strings: Sequence[str] = ()) -> Completion:
        """Convert an ended prefix into a completion; its text ends before the first stop string."""
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

    def text_of(self, tokens: Sequence[int]) -> str:
        """Decode tokens, without special ones."""
        return self._decode(tokens)

    def _decode(self, tokens: Sequence[int], *, shows_special: bool = False) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=not shows_special)
        assert isinstance(text, str)
        return text

    def _extended(self, decoding: DecodingBatch) -> list[Prefix]:
        """Return the decoded prefixes, without cached keys and values."""
        results = decoding.results()
        for prefix, before in zip(results, decoding.prefixes, strict=True):
            prefix.cached, prefix.view = Generated(None), before.view
        return results

    def _prefill(self, prompts: Sequence[Sequence[int]], view: View | None) -> tuple[PrefilledPrompts, torch.Tensor]:
        if view:
            return view.prefill(self._model, prompts, self._pad, self._shared)
        return self._shared.prefill(prompts) if self._shared else CopiedContext.prefill(self._model, prompts, self._pad)

    def _reopen(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Prefill prefixes of several batches, or with own tokens, again as one batch, each distinct token sequence once."""
        distinct, view = list(dict.fromkeys(prefix.tokens for prefix in prefixes)), prefixes[0].view
        if any(prefix.view != view for prefix in prefixes):
            raise ValueError("prefixes of different views can't be extended together: extend them one view at a time")
        opened = dict(zip(distinct, self.open(distinct, view=view), strict=True))
        return [replace(prefix, cached=opened[prefix.tokens].cached) for prefix in prefixes]

    def _check_loaded(self) -> None:
        if self._is_offloaded:
            raise ValueError("the engine's weights were offloaded: call sync_weights before sampling again")

    def _check_alive(self, prefix: Prefix) -> None:
        if prefix.finish is not None:
            raise ValueError(f"a finished prefix ({prefix.finish}) can't be extended")
        self._check_held(prefix)

    def _check_held(self, prefix: Prefix) -> None:
        if prefix.cached is None:
            raise ValueError("a released prefix can't be extended")
        if prefix.policy_version != self.policy_version:
            raise ValueError(f"the prefix belongs to policy version {prefix.policy_version}, the engine is at {self.policy_version}")


def _in_order(completions: Mapping[int, Completion]) -> list[Completion]:
    return [completions[sample] for sample in sorted(completions)]
