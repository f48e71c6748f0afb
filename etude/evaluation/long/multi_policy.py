"""Evaluates many cache policies on one prompt: it is read once, each policy gets a row, and the rows are decoded as one batch.

While a prompt is read at once, a policy evicts only after a layer's attention, so all policies see the states of full attention. Tokens
after the eviction, an unseen question and the answer, are kept.

Shapes: P policies, V vocabulary.
"""

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicCache

from etude.engine.cache import cache_argument
from etude.kv_cache.attachment import Attachment
from etude.kv_cache.cache_layer import split_layers
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.evicting_layer import EvictingCacheLayer
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.full_cache import FULL
from etude.kv_cache.kvzip_reconstruct import Prompt, evict_row, reconstruct, score_inputs_of
from etude.kv_cache.lazyllm import LazyText, LazyTokens
from etude.kv_cache.offload import PagePool
from etude.kv_cache.paged_layer import PagedCacheLayer
from etude.kv_cache.retrieval import PagedRetrieval
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.recording import Recording
from etude.kv_cache.scores.score import Reconstruction
from etude.kv_cache.slots import Slots
from etude.models.adapters import base_of


class Reading:
    """A prompt under full attention, read in parts, with the inputs of the policies' scores."""

    def __init__(self, model: Any, policies: Sequence[CachePolicy] = ()) -> None:
        """Prepare to read a prompt; `policies`: those for which rows may be created."""
        self.model = model
        self._attachment = Attachment.to(model, EvictionPolicy(Recording(tuple(score for policy in policies for score in policy.scores))))
        self._cache: Cache = DynamicCache(config=base_of(model).config.get_text_config())
        self.tokens: list[int] = []
        self.logits_V: torch.Tensor | None = None
        """Logits after the tokens so far."""
        self._replays: dict[Reconstruction, list[torch.Tensor]] = {}

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        self._replays = {}
        with self._attachment.installed():
            output = self.model(
                torch.tensor([list(tokens)], device=self._attachment.device),
                logits_to_keep=1,
                **{cache_argument(base_of(self.model)): self._cache},
            )
        self.tokens += tokens
        self.logits_V = output.logits[0, -1].float()

    def fork(self) -> "Reading":
        """Return an independent copy."""
        other = copy.copy(self)
        other._cache, other.tokens, other._replays = copy.deepcopy(self._cache), list(self.tokens), {}
        return other

    def rows(self, policies: Sequence[CachePolicy]) -> "Rows":
        """Create a row for each of these policies, which are of one kind. Raises ValueError for an eviction policy that rerotates."""
        return policies[0].rows(self, policies)

    @torch.inference_mode()
    def evicted(self, policies: Sequence[EvictionPolicy]) -> "Rows":
        """Create a row for each eviction policy. Raises ValueError for one that rerotates."""
        if any(policy.rerotate for policy in policies):
            raise ValueError("rows of one batch stand at the positions of the text: leave rerotate out")
        attachment = Attachment.to(self.model, FULL)
        attachment.modules, attachment.scales = self._attachment.modules, self._attachment.scales
        cache = DynamicCache(config=attachment.config)
        attachment.adopt(cache)
        self._give_others(cache, len(policies))
        sources = self._layers
        shared = score_inputs_of(sources, 0, FULL)
        kept = [evict_row(sources, 0, policy, self._under(policy, shared)) for policy in policies]
        targets: list[EvictingCacheLayer] = split_layers(cache.layers)[0]
        for number, (layer, source) in enumerate(zip(targets, sources, strict=True)):
            layer.slots = Slots([row[number] for row in kept])
            layer.seen_B, layer.width = np.repeat(source.seen_B, len(policies)), source.width
            layer.is_initialized = True
        return Rows(self.model, attachment, cache, len(policies))

    @torch.inference_mode()
    def paged(self, policies: Sequence[PagedRetrieval]) -> "Rows":
        """Create a row for each retrieval policy over the same pages; the policies may differ in their budgets."""
        attachment = Attachment.to(self.model, policies[0])
        cache = DynamicCache(config=attachment.config)
        attachment.adopt(cache)
        self._give_others(cache, len(policies))
        targets: list[PagedCacheLayer] = split_layers(cache.layers)[0]
        for layer, source in zip(targets, self._layers, strict=True):
            assert source.slots
            segments = source.slots.row(0)
            keys_HTD, values_HTD = (torch.stack([getattr(own, name) for own in segments]) for name in ("keys_TD", "values_TD"))
            layer.take(keys_HTD[None], values_HTD[None], None)
            layer.reorder_cache(torch.zeros(len(policies), dtype=torch.long))
            layer.selection.policy_B = list(policies)
        return Rows(self.model, attachment, cache, len(policies))

    def lazy(self, policies: Sequence[LazyTokens]) -> "Rows":
        """Compute the prompt again under the only policy (LazyLLM)."""
        (policy,) = policies
        return LazyRows(self.model, policy, self.tokens)

    @torch.inference_mode()
    def held(self, policy: EvictionPolicy) -> list[ScoreInputs]:
        """Return, by layer, the inputs of the policy's score for the prompt; `policy.score` computes its tokens' importance from them."""
        return self._under(policy, score_inputs_of(self._layers, 0, policy))

    def _under(self, policy: EvictionPolicy, helds: Sequence[ScoreInputs]) -> list[ScoreInputs]:
        """Convert the inputs to those of another policy, with the results computed so far."""
        recent, found = policy.recent(len(self.tokens)), []
        for layer, held in zip(self._layers, helds, strict=True):
            found.append(replace(held, budget=policy.budget(held.seen, layer.number, layer.layers), recent=recent))
        if policy.reconstruction:
            masses = self._masses(policy.reconstruction)
            found = [replace(held, mass_HT=mass_HT, known={}) for held, mass_HT in zip(found, masses, strict=True)]
        return found

    @torch.inference_mode()
    def read_by(self, tokens: Sequence[int]) -> list[torch.Tensor]:
        """Return, by layer, the attention [H, T] of these tokens, which follow the prompt, to the prompt's tokens. The reading must be for
        a policy that uses sums of attention.
        """
        again = self._unread()
        again.read(tokens)
        return [torch.stack([own.mass_T for own in layer.slots.row(0)])[:, : len(self.tokens)] for layer in again._layers if layer.slots]

    def _give_others(self, cache: Cache, rows: int) -> None:
        """Copy layers of another kind (windows, states), which policies do not change, with a row for each policy."""
        _, others = split_layers(self._cache.layers)
        for number, layer in enumerate(self._cache.layers):
            if layer in others:
                own: Any = copy.deepcopy(layer)
                own.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._attachment.device))
                cache.layers[number] = own

    @property
    def _layers(self) -> list[EvictingCacheLayer]:
        return split_layers(self._cache.layers)[0]

    def _unread(self) -> "Reading":
        """Return a fork whose slots have received no attention yet."""
        again = self.fork()
        for layer in again._layers:
            assert layer.slots
            layer.slots.mass_S.zero_()
        return again

    def _masses(self, how: Reconstruction) -> list[torch.Tensor]:
        """Return, by layer, the largest attention [H, T] of the reconstruction."""
        if how not in self._replays:
            again = self._unread()
            tokens_1T = torch.tensor([self.tokens], device=self._attachment.device)
            is_real_1T, turned_1T = np.ones(tokens_1T.shape, bool), np.arange(len(self.tokens))[None]
            with self._attachment.installed(), self._attachment.replaying():
                prompt = Prompt(tokens_1T, is_real_1T, turned_1T, again._cache)
                reconstruct(self._attachment.decoder, self._attachment.cache_name, prompt, how)
            self._replays[how] = [torch.stack([own.mass_T for own in layer.slots.row(0)]) for layer in again._layers if layer.slots]
        return self._replays[how]


class Rows:
    """Contexts of the same prompt, each under its policy."""

    def __init__(self, model: Any, attachment: Attachment, cache: Cache, count: int) -> None:
        self.attachment, self.cache, self._model, self._count = attachment, cache, model, count
        self.passes = 0
        """Number of forward passes of the model so far."""

    @property
    def held_tokens(self) -> list[float]:
        """Tokens that each row holds on the model's device, averaged over layers and heads.

        Under retrieval with offloading, this counts the tokens read at a time (streamed: in one layer), and summaries by their size.
        """
        layers, _ = split_layers(self.cache.layers)
        streamed_B = np.max([layer.streamed_tokens_B for layer in layers], axis=0) / len(layers)
        return (np.mean([layer.held_tokens_B for layer in layers], axis=0) + streamed_B).tolist()  # type: ignore[no-any-return]

    def shares(self, row: int, tokens: int) -> np.ndarray:
        """Return the share [L, H, T] of the prompt's first `tokens` that a row has, by layer and head: 1 for a kept token; under retrieval
        the share of its page that was read, averaged over the tokens generated so far.
        """
        return np.stack([layer.shares_HT(row, tokens) for layer in split_layers(self.cache.layers)[0]])

    @property
    def hit_rate(self) -> float | None:
        """Share of the units read that were already on the model's device; None without offloading."""
        asked = sum(pool.hits + pool.misses for pool in self._pools)
        return sum(pool.hits for pool in self._pools) / asked if asked else None

    @property
    def expected_rate(self) -> float | None:
        """Share of the fetched units that had been prefetched (`PagedRetrieval.prefetch_pages`)."""
        misses = sum(pool.misses for pool in self._pools)
        return sum(pool.expected_misses for pool in self._pools) / misses if misses else None

    @property
    def moved_bytes(self) -> int:
        """Bytes fetched from offloaded storage."""
        return sum(pool.moved_bytes for pool in self._pools)

    @property
    def _pools(self) -> list[PagePool]:
        return [layer.pool for layer in split_layers(self.cache.layers)[0] if layer.pool]

    def first(self, reading: Reading) -> torch.Tensor:
        """Return the logits [P, V] after the prompt, which are the same for every policy."""
        assert reading.logits_V is not None
        return reading.logits_V.expand(self._count, -1)

    @torch.inference_mode()
    def forced(self, tokens: Sequence[int], *, keep: int | None = None) -> torch.Tensor:
        """Append the same tokens to every row; returns the logits [P, T, V] after each of them, or after each of the last `keep`."""
        return self._logits(torch.tensor([list(tokens)] * self._count), keep=len(tokens) if keep is None else keep)

    def take_back(self, tokens: int) -> None:
        """Remove the last tokens of every row (rollback)."""
        self.cache.crop(-tokens)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows."""
        self.cache.reorder_cache(torch.tensor(list(rows)))  # type: ignore[arg-type]  # annotated LongTensor, which no tensor is
        self._count = len(rows)

    @torch.inference_mode()
    def greedy(self, logits_PV: torch.Tensor, n: int, ends: Collection[int]) -> list[list[int]]:
        """Decode up to `n` tokens greedily for each row, the first from these logits; the results exclude end tokens. Ended rows are
        dropped.
        """
        found: list[list[int]] = [[] for _ in range(self._count)]
        rows = list(range(self._count))
        for step in range(n):
            drawn_P = logits_PV.argmax(-1).tolist()
            going = [place for place, token in enumerate(drawn_P) if token not in ends]
            for place in going:
                found[rows[place]].append(drawn_P[place])
            if not going or step == n - 1:
                break
            if len(going) < len(rows):
                self.keep(going)
                rows, drawn_P = [rows[place] for place in going], [drawn_P[place] for place in going]
            logits_PV = self._logits(torch.tensor(drawn_P)[:, None], keep=1)[:, -1]
        return found

    def _logits(self, tokens_PT: torch.Tensor, keep: int) -> torch.Tensor:
        self.passes += 1
        with self.attachment.installed():
            logits_PTV: torch.Tensor = self._model(
                tokens_PT.to(self.attachment.device), logits_to_keep=keep, **{cache_argument(base_of(self._model)): self.cache}
            ).logits
        return logits_PTV.float()


class LazyRows(Rows):
    """One row of a lazily computed text (LazyLLM)."""

    def __init__(self, model: Any, how: LazyTokens, text: Sequence[int]) -> None:
        self._text, self._count, self.passes = LazyText(model, how), 1, 0
        self._first_V = self._text.read(text).float()

    @property
    def held_tokens(self) -> list[float]:
        return [self._text.computed_tokens]

    def shares(self, row: int, tokens: int) -> np.ndarray:
        """Return which tokens were computed [L, 1, T], by layer, the same for every head."""
        return self._text.is_computed_LT[:, None, :tokens].double().cpu().numpy()

    def first(self, reading: Reading | None = None) -> torch.Tensor:
        return self._first_V[None]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep the only row."""

    def take_back(self, tokens: int) -> None:
        """Raise ValueError, since reading has made other tokens continue."""
        raise ValueError("tokens that are computed as far as they are read can't be taken back")

    def _logits(self, tokens_PT: torch.Tensor, keep: int) -> torch.Tensor:
        """Read tokens together if only the logits after the last are needed, otherwise one by one."""
        self.passes += 1
        (tokens_T,) = tokens_PT
        parts = [tokens_T] if keep == 1 else list(tokens_T[:, None])
        return torch.stack([self._text.read(part).float() for part in parts])[None, -keep:]
