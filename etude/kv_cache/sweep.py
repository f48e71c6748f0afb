"""A prompt is read once and cut by many policies, whose answers are then decoded as one batch.

While a prompt is read in one piece, what a policy drops of it goes only behind a layer's attention, so that all policies see the same
states: those of full attention. What comes behind the cut, a question that was not known before and the answer, is kept.

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
from etude.kv_cache.attach import Attachment
from etude.kv_cache.held import Held
from etude.kv_cache.lazy import Lazy, LazyText
from etude.kv_cache.page_layer import PageLayer
from etude.kv_cache.policy import Policy
from etude.kv_cache.recall import Recall
from etude.kv_cache.replay import Prompt, cut_row, replay, row_held
from etude.kv_cache.scores.recording import Recording
from etude.kv_cache.scores.replayed import Replayed
from etude.kv_cache.scores.streaming import Streaming
from etude.kv_cache.slot_layer import SlotLayer
from etude.kv_cache.slots import Slots
from etude.kv_cache.tiers import Pool
from etude.models.adapters import base_of

FULL = Policy(Streaming())
"""Everything is kept."""


class Reading:
    """A prompt under full attention, read piece by piece, with what scores go by."""

    def __init__(self, model: Any, policies: Sequence[Policy] = ()) -> None:
        """`policies`: those that may cut it."""
        self.model = model
        self._attachment = Attachment.to(model, Policy(Recording(tuple(policy.score for policy in policies))))
        self._cache: Cache = DynamicCache(config=base_of(model).config.get_text_config())
        self.tokens: list[int] = []
        self.logits_V: torch.Tensor | None = None
        """Of what follows."""
        self._replays: dict[Replayed, list[torch.Tensor]] = {}

    @torch.inference_mode()
    def read(self, tokens: Sequence[int]) -> None:
        """More of it."""
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
        """A copy that is gone on with apart."""
        other = copy.copy(self)
        other._cache, other.tokens, other._replays = copy.deepcopy(self._cache), list(self.tokens), {}
        return other

    @torch.inference_mode()
    def cut(self, policies: Sequence[Policy]) -> "Rows":
        """A row for each policy. Raises ValueError for one that moves what it keeps."""
        if any(policy.rerotate for policy in policies):
            raise ValueError("rows of one batch stand at the positions of the text: leave rerotate out")
        attachment = Attachment.to(self.model, FULL)
        attachment.modules, attachment.scales = self._attachment.modules, self._attachment.scales
        cache = DynamicCache(config=attachment.config)
        attachment.adopt(cache)
        self._give_others(cache, len(policies))
        sources = self._layers
        shared = row_held(sources, 0, FULL)
        kept = [cut_row(sources, 0, policy, self._under(policy, shared)) for policy in policies]
        targets = [layer for layer in cache.layers if isinstance(layer, SlotLayer)]
        for number, (layer, source) in enumerate(zip(targets, sources, strict=True)):
            layer.slots = Slots([row[number] for row in kept])
            layer.seen_B, layer.width = np.repeat(source.seen_B, len(policies)), source.width
            layer.is_initialized = True
        return Rows(self.model, attachment, cache, len(policies))

    @torch.inference_mode()
    def paged(self, recalls: Sequence[Recall]) -> "Rows":
        """A row for each way to recall the same pages: they may differ in how much they read."""
        attachment = Attachment.to(self.model, recalls[0])
        cache = DynamicCache(config=attachment.config)
        attachment.adopt(cache)
        self._give_others(cache, len(recalls))
        targets = [layer for layer in cache.layers if isinstance(layer, PageLayer)]
        for layer, source in zip(targets, self._layers, strict=True):
            assert source.slots
            segments = source.slots.row(0)
            keys_HTD, values_HTD = (torch.stack([getattr(own, name) for own in segments]) for name in ("keys_TD", "values_TD"))
            layer.take(keys_HTD[None], values_HTD[None], None)
            layer.reorder_cache(torch.zeros(len(recalls), dtype=torch.long))
            layer.recall_B = list(recalls)
        return Rows(self.model, attachment, cache, len(recalls))

    @torch.inference_mode()
    def held(self, policy: Policy) -> list[Held]:
        """By layer what the policy's score is given of the prompt: a score of one is the importance of its tokens."""
        return self._under(policy, row_held(self._layers, 0, policy))

    def _under(self, policy: Policy, helds: Sequence[Held]) -> list[Held]:
        """The same under another policy, with what was found of it so far."""
        recent, found = policy.recent(len(self.tokens)), []
        for layer, held in zip(self._layers, helds, strict=True):
            found.append(replace(held, budget=policy.budget(held.seen, layer.number, layer.layers), recent=recent))
        if isinstance(policy.score, Replayed):
            masses = self._masses(policy.score)
            found = [replace(held, mass_HT=mass_HT, known={}) for held, mass_HT in zip(found, masses, strict=True)]
        return found

    @torch.inference_mode()
    def read_by(self, tokens: Sequence[int]) -> list[torch.Tensor]:
        """By layer the attention [H, T] that these tokens, behind the prompt, give to each of its own; of a reading for a policy that goes
        by sums of attention.
        """
        again = self._unread()
        again.read(tokens)
        return [torch.stack([own.mass_T for own in layer.slots.row(0)])[:, : len(self.tokens)] for layer in again._layers if layer.slots]

    def _give_others(self, cache: Cache, rows: int) -> None:
        """Layers of another kind (windows, states), which no policy cuts: a row of their own for each."""
        for number, layer in enumerate(self._cache.layers):
            if not isinstance(layer, SlotLayer):
                own: Any = copy.deepcopy(layer)
                own.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._attachment.device))
                cache.layers[number] = own

    @property
    def _layers(self) -> list[SlotLayer]:
        return [layer for layer in self._cache.layers if isinstance(layer, SlotLayer)]

    def _unread(self) -> "Reading":
        """A fork whose slots have had no attention yet."""
        again = self.fork()
        for layer in again._layers:
            assert layer.slots
            layer.slots.mass_S.zero_()
        return again

    def _masses(self, score: Replayed) -> list[torch.Tensor]:
        """By layer what the score goes by, [H, T]."""
        if score not in self._replays:
            again = self._unread()
            tokens_1T = torch.tensor([self.tokens], device=self._attachment.device)
            is_real_1T, turned_1T = np.ones(tokens_1T.shape, bool), np.arange(len(self.tokens))[None]
            with self._attachment.installed(), self._attachment.replaying():
                replay(self._attachment.decoder, self._attachment.cache_name, Prompt(tokens_1T, is_real_1T, turned_1T, again._cache), score)
            self._replays[score] = [torch.stack([own.mass_T for own in layer.slots.row(0)]) for layer in again._layers if layer.slots]
        return self._replays[score]


def _paged_tokens(cache: Cache) -> list[float]:
    """Of each row what it reads at a time (what passes: in one layer alone), or all where nothing is further away; and digests by what they
    take.
    """
    layers = [layer for layer in cache.layers if isinstance(layer, PageLayer)]
    held, passing = [], [np.zeros(len(layers[0].seen_B))]
    for layer in layers:
        full_B, open_B = layer.full_B, layer.open_B
        read_B = [
            recall.units(int(seen), layer.number) * recall.unit_tokens for recall, seen in zip(layer.recall_B, layer.seen_B, strict=True)
        ]
        near_B = full_B * layer.recall.page_tokens
        near_B = near_B if layer.recall.offload == "none" else np.minimum(read_B, near_B)
        if layer.recall.passing:
            passing.append(near_B)
            near_B = np.zeros_like(near_B)
        held.append(near_B + open_B + layer.digest_tokens_B)
    return (np.mean(held, axis=0) + np.max(passing, axis=0) / len(layers)).tolist()  # type: ignore[no-any-return]


class Rows:
    """Contexts of the same prompt, each by its policy."""

    def __init__(self, model: Any, attachment: Attachment, cache: Cache, count: int) -> None:
        self.attachment, self.cache, self._model, self._count = attachment, cache, model, count
        self.passes = 0
        """Of the model, so far."""

    @property
    def held_tokens(self) -> list[float]:
        """What each row holds where the model computes, on average over layers and heads."""
        slots = [layer.slots for layer in self.cache.layers if isinstance(layer, SlotLayer) and layer.slots]
        return np.mean([own.count_BH.mean(1) for own in slots], axis=0).tolist() if slots else _paged_tokens(self.cache)

    def shares(self, row: int, tokens: int) -> np.ndarray:
        """What a row has of the prompt's first tokens, so many, by layer and head, [L, H, T]: 1 where one is kept; under recall how
        much of its page was read, on average over the tokens that were generated so far.
        """
        found = []
        for layer in self.cache.layers:
            if isinstance(layer, SlotLayer) and layer.slots:
                kept_HT = np.zeros((layer.slots.heads, tokens))
                for head, own in enumerate(layer.slots.row(row)):
                    position = own.position_T.cpu().numpy()
                    kept_HT[head, position[position < tokens]] = 1
                found.append(kept_HT)
            elif isinstance(layer, PageLayer):
                by_page_HP = layer.times_BHP[row] / (layer.units * max(1, layer.generated_B[row]))
                found.append(by_page_HP.repeat(layer.recall.page_tokens, 1)[:, :tokens])
        return np.stack(found)

    @property
    def hit_rate(self) -> float | None:
        """Of what was read of pages, the share that lay beside the model already; None where none lies further away."""
        asked = sum(pool.hits + pool.misses for pool in self._pools)
        return sum(pool.hits for pool in self._pools) / asked if asked else None

    @property
    def expected_rate(self) -> float | None:
        """Of what was brought from further away, the share that had been asked for before (`Recall.ahead_pages`)."""
        misses = sum(pool.misses for pool in self._pools)
        return sum(pool.expected_misses for pool in self._pools) / misses if misses else None

    @property
    def moved_bytes(self) -> int:
        """That were brought from further away."""
        return sum(pool.moved_bytes for pool in self._pools)

    @property
    def _pools(self) -> list[Pool]:
        return [layer.tier for layer in self.cache.layers if isinstance(layer, PageLayer) and isinstance(layer.tier, Pool)]

    def first(self, reading: Reading) -> torch.Tensor:
        """The logits [P, V] of what follows the prompt itself, which are the same for every policy."""
        assert reading.logits_V is not None
        return reading.logits_V.expand(self._count, -1)

    @torch.inference_mode()
    def forced(self, tokens: Sequence[int], *, keep: int | None = None) -> torch.Tensor:
        """The same tokens behind every row: logits [P, T, V] of what follows each of them, or of what follows the last `keep`."""
        return self._logits(torch.tensor([list(tokens)] * self._count), keep=len(tokens) if keep is None else keep)

    def take_back(self, tokens: int) -> None:
        """The last ones."""
        self.cache.crop(-tokens)

    def keep(self, rows: Sequence[int]) -> None:
        """These rows, and no others."""
        self.cache.reorder_cache(torch.tensor(list(rows)))  # type: ignore[arg-type]  # annotated LongTensor, which no tensor is
        self._count = len(rows)

    @torch.inference_mode()
    def greedy(self, logits_PV: torch.Tensor, n: int, ends: Collection[int]) -> list[list[int]]:
        """Up to `n` tokens for each row, the first ones by these logits; without the token that ended them. Rows that end are let go of."""
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
    """A text that is computed as far as it is read: one row, which no policy shares."""

    def __init__(self, model: Any, how: Lazy, text: Sequence[int]) -> None:
        self._text, self._count, self.passes = LazyText(model, how), 1, 0
        self._first_V = self._text.read(text).float()

    @property
    def held_tokens(self) -> list[float]:
        return [self._text.computed_tokens]

    def shares(self, row: int, tokens: int) -> np.ndarray:
        """By layer and, for every head alike, which tokens were computed: [L, 1, T]."""
        return self._text.is_computed_LT[:, None, :tokens].double().cpu().numpy()

    def first(self, reading: Reading | None = None) -> torch.Tensor:
        return self._first_V[None]

    def keep(self, rows: Sequence[int]) -> None:
        """The one."""

    def take_back(self, tokens: int) -> None:
        """Raises ValueError: what was read has made others go on."""
        raise ValueError("tokens that are computed as far as they are read can't be taken back")

    def _logits(self, tokens_PT: torch.Tensor, keep: int) -> torch.Tensor:
        """Tokens come together where only what follows the last of them is asked for, otherwise one by one."""
        self.passes += 1
        (tokens_T,) = tokens_PT
        parts = [tokens_T] if keep == 1 else list(tokens_T[:, None])
        return torch.stack([self._text.read(part).float() for part in parts])[None, -keep:]
