"""The default engine: any decoder-only transformers model that keeps in its cache what it has read, on a CPU or a GPU.

A prompt is computed once however many samples it gets: `open` prefills distinct prompts, `extend` decodes all samples as one batch, which
on a CPU reads a prompt once for all of its samples (`etude.engine.context`). Samples that have drawn the same tokens so far share a row,
which forks where they part; finished rows leave, and prompts that wait take their places. Random numbers are keyed per attempt and
position (`etude.randomness`), so an attempt does not depend on what is sampled beside it; in float32 exactly up to rounding of the matrix
products, in bfloat16 another batch shape can flip a token.

A second engine offers the same `open`, `extend`, `extend_joint`, `redraw`, `release`, `generate`, `put_away` and `refresh`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from etude.engine.blocks import BlockContext, BlockPrompts, length_of
from etude.engine.cache import cache_argument
from etude.engine.completion import Completion, Prefix, Stop
from etude.engine.context import Context, CopiedContext, Opened, View
from etude.engine.decoding import Decoding, Done, Heard, More, Refill
from etude.engine.drafts import Reading, Tree
from etude.engine.forward import check_copies, forward_of
from etude.engine.heap import fix_thresholds
from etude.engine.joint import Join, Joint, JointContext, product
from etude.engine.prefixes import Drawn, OpenBatch, Row, alike, cut, is_one_batch, join, keep, path_of
from etude.engine.sampling import Sampling
from etude.engine.working_copy import WorkingCopy
from etude.models.adapters import base_of, has_adapters
from etude.models.load import end_tokens, max_positions
from etude.randomness import seed_for

_REFILL_FROM = 0.25
"""Share of a batch's completions that must be over before others take their places: prompts are computed faster several at a time."""


class TransformersEngine:
    """Prefixes → tokens with behaviour log-probs, on top of a transformers model."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype = torch.float32,
        batch_tokens: int = 32768,
        view: View | None = None,
    ) -> None:
        """`dtype` is the precision of the working copy (float32 without adapters samples from `model` itself, without a copy);
        `batch_tokens` bounds the cache positions (rows x length) that are decoded together; `view` is how contexts are seen unless another
        one is named: None, as they are.
        """
        fix_thresholds()
        self.tokenizer = tokenizer
        self.batch_tokens, self.view = batch_tokens, view
        self.policy_version = 0
        self.computed_tokens = 0
        """Given to the model so far, those of prompts and of what is drawn, but for drafts."""
        base = base_of(model)
        self.positions = max_positions(base)
        """How long a prompt may be with what is drawn behind it."""
        cache_argument(base)  # one that takes none is refused
        self._copy = None if dtype == torch.float32 and not has_adapters(model) else WorkingCopy(model, dtype)
        self._model: PreTrainedModel = self._copy.model if self._copy else base
        self._device = next(base.parameters()).device
        self.end_tokens = end_tokens(self._model, tokenizer)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(self.end_tokens), 0)
        self._shared = forward_of(base, self._model)
        if self._shared is None:
            check_copies(base)
        self._is_away = False

    def put_away(self) -> None:
        """Let go of weights that `refresh` makes anew, so that learning has their memory. Until then nothing is sampled."""
        self._is_away = True
        if self._copy:
            self._copy.put_away()
        if self._shared:
            self._shared.forward.put_away()

    def refresh(self, policy_version: int) -> None:
        """Take over the master's weights after an update; prefixes of earlier versions die."""
        self.policy_version, self._is_away = policy_version, False
        if self._copy:
            self._copy.refresh()
        if self._shared:
            self._shared.forward.refresh()

    # ------------------------------------------------------------------ the three verbs

    @torch.inference_mode()
    def open(self, prompts: Sequence[Sequence[int]], behind: Sequence[Prefix] | None = None, *, view: View | None = None) -> list[Prefix]:
        """Prefill the prompts as one batch; returns one prefix for each, in order.

        `behind`: a prefix for each prompt, finished or not, that it stands behind (the same one may be named many times); what is kept of
        these is not computed again, but under the engine's own view, where all is read anew as a prompt. What comes back has no own tokens:
        all that it holds is given. With a `view`, which nothing else may stand behind, it is decoded by that.
        """
        self._check_here()
        if behind and (view or any(prefix.view != self.view for prefix in behind)):
            raise ValueError("what a view opens stands behind nothing, and nothing behind it: give whole prompts")
        view = view or self.view
        if any(len(prompt) == 0 for prompt in prompts):
            raise ValueError("a prompt needs at least one token")
        for prefix in behind or ():
            self._check_held(prefix)
        paths = [path_of(prefix) for prefix in behind or () if not view]
        before = [prefix.tokens for prefix in behind] if behind else [()] * len(prompts)
        inputs = [(*given, *prompt) for given, prompt in zip(before, prompts, strict=True)]
        if any(paths):
            assert self._shared
            new = [tokens[length_of(path) :] for tokens, path in zip(inputs, paths, strict=True)]
            batch = OpenBatch(*BlockPrompts.prefill(self._shared.forward, new, paths))
        else:
            new = inputs
            batch = OpenBatch(*self._prefill(new, view))
        self.computed_tokens += sum(map(len, new))
        return [Prefix(tokens, self.policy_version, view=view, cached=Row(batch, row)) for row, tokens in enumerate(inputs)]

    @torch.inference_mode()
    def extend(
        self,
        prefixes: Sequence[Prefix],
        n: int | Sequence[int],
        *,
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        done: Done | None = None,
        refill: Refill | None = None,
        keeps: bool = True,
        heard: Heard | None = None,
    ) -> list[Prefix]:
        """Sample up to `n` more own tokens (one number for all, or one each) for each prefix, which may be named many times, one key each.

        The random number of an own token is drawn from the prefix's key and the token's place among the own tokens. `done` is told of each
        prefix that gets no more, while others still do, `heard` of each token; `refill` gives others to decode in the places of those that
        ended, and they come behind them in what is returned. Raises `ValueError` for a finished, released or stale prefix.

        With `keeps`, what is returned is extended in its turn, any number of times, and nothing is computed again; where prompts can't be
        kept by kernels (`etude.engine.blocks`), all of it is; under a view that drops it is then read as a prompt, of which another part
        is kept than of what is generated.
        """
        self._check_here()
        for prefix in prefixes:
            self._check_alive(prefix)
        if keeps and refill:
            raise ValueError("keys and values are kept of what does not make room for others: keeps or refill, not both")
        prefixes = prefixes if is_one_batch(prefixes) or all(map(path_of, prefixes)) else self._reopen(prefixes)
        decoding = Decoding(prefixes, n, until, sampling, keys, self._decode, done, keeps=keeps, heard=heard)
        room = max(decoding.most)
        if min(decoding.most) == 0 < room:
            raise ValueError("n is 0 for some of the prefixes and not for others: leave those out")
        if room == 0:
            decoding.hand_out(range(len(prefixes)))
            return self._extended(decoding)
        before = alike(prefixes)
        context, logits_BV, row_N = self._begin(before, room, keeps)
        decoding.run(context, logits_BV, row_N, refill)
        self.computed_tokens += decoding.num_computed
        extended = self._extended(decoding)
        if decoding.drawn:
            keep(extended, before, decoding.drawn, [logits_BV[row] for row in row_N.tolist()])
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
        heard: Heard | None = None,
    ) -> list[Joint]:
        """One answer of up to `n` tokens to each group of prefixes, one or more in each, decoded from what `join` makes of their next-token
        distributions (`etude.engine.joint`); one key for each group. `weights`: of each prefix, 1 in all of a group; all the same unless
        given. A prefix that stands in a group twice weighs twice and costs once. `heard` is told of each token, with its group.

        Random numbers are drawn as for a prompt, so that the answer to a group of one is what `generate` gives.
        """
        self._check_here()
        if not all(groups):
            raise ValueError("a group needs at least one prefix")
        flat = [prefix for group in groups for prefix in group]
        for prefix in flat:
            self._check_alive(prefix)
        flat = flat if is_one_batch(flat) or all(map(path_of, flat)) else self._reopen(flat)
        context, logits_BV, row_N = self._begin(alike(flat), n, False)
        weights = weights or [[1 / len(group)] * len(group) for group in groups]
        joint, rows_B = JointContext.of(context, row_N, weights, join, n, self._device)
        empty = [Prefix((), self.policy_version) for _ in groups]
        decoding = Decoding(empty, n, Stop(self.end_tokens, tuple(stop_strings)), sampling, keys, self._decode, heard=heard)
        decoding.run(joint, joint.joined(logits_BV[rows_B]), np.arange(len(groups)))
        self.computed_tokens += joint.computed_tokens
        found = [self.completion(prefix, key, stop_strings) for prefix, key in zip(decoding.results(), keys, strict=True)]
        return [Joint(replace(each, view="joint"), joint.agreement(number, each.tokens)) for number, each in enumerate(found)]

    def _begin(self, prefixes: Sequence[Prefix], n: int, keeps: bool) -> tuple[Context, torch.Tensor, np.ndarray]:
        """Rows that continue these prefixes, each distinct one once, the logits [B, V] of what follows them, and the row of each prefix."""
        if is_one_batch(prefixes):
            distinct, row_N = np.unique([prefix.cached.row for prefix in prefixes], return_inverse=True)
            rows, source = torch.from_numpy(distinct).to(self._device), prefixes[0].cached.batch
            context = source.context.begin(rows, n, samples=len(prefixes))
            if isinstance(context, BlockContext):
                context.keeps_reads = keeps
            return context, source.logits_BV[rows], row_N
        assert self._shared
        context, logits_BV, row_N, computed = join(self._shared.forward, prefixes, n, keeps=keeps)
        self.computed_tokens += computed
        return context, logits_BV, row_N

    @property
    def shares_prompts(self) -> bool:
        """Whether what prefixes have in common is there once for all that go on from it."""
        return self._shared is not None and not self.view

    def cut(self, prefix: Prefix, num_own_tokens: int) -> Prefix:
        """The prefix as it was after so many own tokens, one at least, to be extended from there; where a forward pass keeps nothing of its
        head (`etude.engine.modules`), its last token is computed again, once.
        """
        return replace(cut(prefix, num_own_tokens), view=prefix.view)

    @torch.inference_mode()
    def redraw(
        self,
        prompts: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]],
        n: int,
        *,
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        done: Done | None = None,
    ) -> list[Prefix]:
        """A completion of each prompt (the same one may be named many times), the same as by `open` and `extend` up to rounding, and the
        sooner the more of its draft the key's numbers draw again (`etude.engine.drafts`).

        Where there is no forward pass whose attention can be left to others, drafts are of no use, and it is `open` and `extend`.
        """
        self._check_here()
        distinct = list(dict.fromkeys(map(tuple, prompts)))
        if self._shared is None or self.view:
            opened = dict(zip(distinct, self.open(distinct), strict=True))
            return self.extend([opened[tuple(prompt)] for prompt in prompts], n, until=until, sampling=sampling, keys=keys, done=done)
        members = [[i for i, other in enumerate(prompts) if tuple(other) == prompt] for prompt in distinct]
        guesses = [[drafts[i][:n] for i in chosen] for chosen in members]
        trees = [Tree.of(prompt, own) for prompt, own in zip(distinct, guesses, strict=True)]
        reading = Reading(self._shared.forward, trees)
        prefixes = [Prefix(tuple(prompt), self.policy_version) for prompt in prompts]
        decoding = Decoding(prefixes, n, until, sampling, keys, self._decode, done)
        paths: dict[int, tuple[int, list[int]]] = {}
        for number, found in enumerate(reading.draw(guesses, [[keys[i] for i in chosen] for chosen in members], sampling)):
            for i, path, drawn in zip(members[number], trees[number].paths, found, strict=True):
                decoding.take(i, *drawn)
                paths[i] = number, path[: len(prompts[i]) + len(decoding.tokens[i]) - 1]
        decoding.go_on(reading, paths)
        return self._extended(decoding)

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
        drafts: Sequence[Sequence[Sequence[int]]] | None = None,
        done: Callable[[int, list[Completion]], None] | None = None,
        view: View | None = None,
        heard: Callable[[int, int, int], None] | None = None,
    ) -> list[list[Completion]]:
        """`num_samples` completions of every prompt, token ids in and out.

        `keys` (one for each prompt and sample; some prompts may have fewer samples) fix the random numbers; without them they are hashed
        from `seed`, the prompt's place and the sample's number. `drafts` (one for each prompt and sample, maybe empty) are guesses at what
        these decide: they change how long it takes, and nothing else. `done` is given the place and completions of each prompt that has
        them all, while those of others are still decoded. `view`: how the model sees the context and says what follows it; None: as it is.
        `heard` is told the place of a prompt, the number of a sample and each of its tokens, as these are drawn (not from drafts).
        """
        if keys is None:
            keys = [[seed_for(seed, i, j) for j in range(num_samples)] for i in range(len(prompts))]
        view = view or self.view
        until = Stop(self.end_tokens, tuple(stop_strings))
        found: list[dict[int, Completion]] = [{} for _ in prompts]
        waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        while waiting:
            count = self._chunk_size(len(prompts[waiting[0]]), num_samples, max_new_tokens, view)
            chunk, waiting[:] = waiting[:count], waiting[count:]
            wanted = [(i, sample, keys[i][sample]) for i in chunk for sample in range(len(keys[i]))]
            guesses = drafts if drafts and not view and any(any(drafts[i]) for i in chunk) else None
            opened = {} if guesses else dict(zip(chunk, self.open([prompts[i] for i in chunk], view=view), strict=True))
            is_shared = self._shared is not None and not guesses and not view
            rows = self._samples_at_once(len(prompts[chunk[0]]), max_new_tokens, view, is_shared=is_shared)
            for part in (wanted[start : start + rows] for start in range(0, len(wanted), rows)):

                def keep(place: int, prefix: Prefix, part: list[tuple[int, int, int]] = part) -> None:
                    i, sample, key = part[place]
                    found[i][sample] = replace(self.completion(prefix, key, stop_strings), view=view.name if view else "full")
                    if done and len(found[i]) == len(keys[i]):
                        done(i, _in_order(found[i]))

                def tell(place: int, token: int, part: list[tuple[int, int, int]] = part) -> None:
                    if heard:
                        heard(*part[place][:2], token)

                how: dict[str, Any] = {"until": until, "sampling": sampling, "keys": [key for _, _, key in part], "done": keep}
                if guesses:
                    chosen = [guesses[i][sample] for i, sample, _ in part]
                    self.redraw([prompts[i] for i, _, _ in part], chosen, max_new_tokens, **how)
                else:
                    refills = len(wanted) <= rows and not drafts and not view
                    refill = self._refill_from(waiting, prompts, keys, part) if refills else None
                    self.extend(
                        [opened[i] for i, _, _ in part], max_new_tokens, **how, refill=refill, keeps=False, heard=tell if heard else None
                    )
            self.release(list(opened.values()))
        return [_in_order(completions) for completions in found]

    def _chunk_size(self, longest: int, num_samples: int, max_new_tokens: int, view: View | None) -> int:
        """How many prompts of up to this length have samples that fit into `batch_tokens` positions together; one at least, whose samples
        are then decoded in parts.
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
        """Takes prompts that wait, no longer than those that are decoded, as soon as a share of `_REFILL_FROM` of the completions of `part`
        has ended; `part` grows by what joins it.
        """
        capacity = len(part)

        def refill(going: int) -> More | None:
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
            return More(opened, logits_PV, prefixes, np.array([row_of[i] for i, _, _ in wanted]), [key for _, _, key in wanted])

        return refill

    def _samples_at_once(self, prompt_tokens: int, max_new_tokens: int, view: View | None, *, is_shared: bool) -> int:
        """Of one prompt, which takes its positions once where it is shared (behind drafts it is not)."""
        if is_shared:
            return max(1, (self.batch_tokens - prompt_tokens) // max(1, max_new_tokens))
        held = view.held_tokens(prompt_tokens, max_new_tokens) if view else prompt_tokens + max_new_tokens
        return max(1, self.batch_tokens // held)

    def completion(self, prefix: Prefix, key: int, stop_strings: Sequence[str] = ()) -> Completion:
        """What is over, as it is handed out."""
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
        """Without special tokens."""
        return self._decode(tokens)

    def _decode(self, tokens: Sequence[int], *, shows_special: bool = False) -> str:
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=not shows_special)
        assert isinstance(text, str)
        return text

    def _extended(self, decoding: Decoding) -> list[Prefix]:
        """What was decoded, of which nothing is kept so far."""
        results = decoding.results()
        for prefix, before in zip(results, decoding.prefixes, strict=True):
            prefix.cached, prefix.view = Drawn(None), before.view
        return results

    def _prefill(self, prompts: Sequence[Sequence[int]], view: View | None) -> tuple[Opened, torch.Tensor]:
        if view:
            return view.prefill(self._model, prompts, self._pad, self._shared)
        return self._shared.prefill(prompts) if self._shared else CopiedContext.prefill(self._model, prompts, self._pad)

    def _reopen(self, prefixes: Sequence[Prefix]) -> list[Prefix]:
        """Prefixes of several batches, or with own tokens, are prefilled anew as one batch (each distinct token row once)."""
        distinct, view = list(dict.fromkeys(prefix.tokens for prefix in prefixes)), prefixes[0].view
        if any(prefix.view != view for prefix in prefixes):
            raise ValueError("prefixes of several views are extended apart")
        opened = dict(zip(distinct, self.open(distinct, view=view), strict=True))
        return [replace(prefix, cached=opened[prefix.tokens].cached) for prefix in prefixes]

    def _check_here(self) -> None:
        if self._is_away:
            raise ValueError("the engine's weights were put away for an update: refresh it before it samples again")

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
