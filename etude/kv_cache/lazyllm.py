"""LazyLLM: prunes prompt tokens layer by layer, and computes the pruned ones later if they are needed.

After some of the layers, the tokens with the most attention from the last token continue, and the others stop:

    importance_t = mean over heads of the last token's attention to t in that layer        (LazyLLM, Fu et al. 2024, arXiv 2407.14057)

The hidden state of a stopped token is kept. Every later token selects again; a selected token continues from its hidden state. So no layer
computes a token twice, and unused tokens cost neither time nor memory in later layers. A continuing token attends to the earlier continuing
tokens. The paper does not name the layers; here they divide the model evenly, and equally many tokens stop after each of them, down to the
budget after the last. The first tokens and the last ones always continue.

Identity: with `keep_ratio` 1 all tokens continue, which is the model itself.

It supports the architectures of `LLAMA_SHAPED` and computes one row at a time, since the continuing tokens differ between rows.

Shapes: N new tokens, M tokens that a layer computes, S tokens that continue, T all tokens, L layers, H query heads, K key/value heads, D
head width, E hidden width, V vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from etude.engine.protocols import Context, PrefilledPrompts, SharedPrefixForward, View
from etude.errors import UserError, at_least
from etude.kv_cache.attention import weights
from etude.kv_cache.budgets import check_budget, is_everything, tokens_of
from etude.kv_cache.cache_layer import Forward, PolicyCacheLayer
from etude.kv_cache.cache_policy import CachePolicy, R_co, RowMaker
from etude.kv_cache.view import Peak
from etude.models.adapters import base_of
from etude.models.load import LLAMA_SHAPED

_numbers = itertools.count()


@dataclass(frozen=True)
class LazyTokens(CachePolicy):
    """The LazyLLM policy: how many tokens continue, and after which layers. `cuts`, `sinks` and `recent` are set in Python."""

    options: ClassVar[tuple[str, ...]] = ("keep_ratio", "budget_tokens")
    reads_own_prompt: ClassVar[bool] = True

    budget_tokens: int | None = None
    """Budget after the last cut, or"""
    keep_ratio: float | None = None
    """the share of the tokens so far."""
    cuts: int = 3
    """Number of layers after which tokens stop, which divide the model evenly."""
    sinks: int = 4
    """Number of first tokens, which always continue."""
    recent: int = 16
    """Number of last tokens, which always continue."""

    def __post_init__(self) -> None:
        check_budget(self.budget_tokens, self.keep_ratio)
        for name in ("cuts", "recent"):
            at_least(name, getattr(self, name), 1)
        at_least("sinks", self.sinks, 0)

    def layer(self, forward: Forward, number: int, layers: int) -> PolicyCacheLayer:
        """Raise UserError, since a cache layer can't decide which tokens a model computes."""
        raise UserError("lazy decides which tokens a layer computes, which a cache can't: sample under it with kv_cache.policy lazy")

    def view(self, name: str) -> View:
        return LazyView(name, self)

    def rows(self, prompt: RowMaker[R_co], policies: Sequence[CachePolicy]) -> R_co:
        return prompt.lazy(policies)

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return the number of all tokens, since the first layers compute every token."""
        return prompt_tokens + new_tokens

    def going(self, seen: int, layer: int, layers: int) -> int:
        """Return how many of `seen` tokens continue after this layer (counted from 1) of a model with `layers` layers."""
        if is_everything(self.budget_tokens, self.keep_ratio):
            return seen
        cut = sum(layer >= round(layers * number / (self.cuts + 1)) for number in range(1, self.cuts + 1))
        least = min(seen, max(tokens_of(self.budget_tokens, self.keep_ratio, seen), self.sinks + self.recent))
        return seen - (seen - least) * cut // self.cuts


class LazyText:
    """A text of which each layer has computed some of the tokens.

    Raises UserError for a model whose layers can't skip tokens.
    """

    def __init__(self, model: Any, how: LazyTokens) -> None:
        base = base_of(model)
        if type(base).__name__ not in LLAMA_SHAPED:
            raise UserError(f"layers of a {type(base).__name__} can't leave tokens out: a lazy view is for {', '.join(LLAMA_SHAPED)}")
        kinds = set(getattr(base.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise UserError(f"layers with {', '.join(sorted(kinds - {'full_attention'}))} can't leave tokens out: take another view")
        self.model, self.how = base, how
        config, weight = base.config, base.get_input_embeddings().weight
        self._layers = base.get_decoder().layers
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self._states = [_Grown.of((config.num_key_value_heads, 0, 2 * width), 1, weight) for _ in self._layers]
        """Keys and values of the tokens that each layer has computed, in the order of computation."""
        self._place_TL = torch.zeros(0, len(self._layers), dtype=torch.long, device=weight.device)
        """Index of each token in `_states`."""
        self._reached = _Grown.of((0, config.hidden_size), 0, weight)
        """Hidden states [T, E] after the last layer that computed each token; initially its embedding."""
        self.depth_T = torch.zeros(0, dtype=torch.long, device=weight.device)
        """Number of layers that have computed each token."""

    def __len__(self) -> int:
        return len(self.depth_T)

    @property
    def computed_tokens(self) -> float:
        """Mean number of tokens that a layer has computed."""
        return float(self.depth_T.sum()) / len(self._layers)

    @property
    def is_computed_LT(self) -> torch.Tensor:
        """Which tokens each layer has computed."""
        return self.depth_T > torch.arange(len(self._layers), device=self.depth_T.device)[:, None]

    @property
    def bytes(self) -> int:
        """Bytes allocated for keys, values and hidden states."""
        return sum(each.bytes for each in (*self._states, self._reached))

    def copy(self) -> "LazyText":
        """Return an independent copy."""
        other = object.__new__(LazyText)
        other.__dict__ = dict(self.__dict__)
        other._states, other._reached = [each.copy() for each in self._states], self._reached.copy()
        other._place_TL, other.depth_T = self._place_TL.clone(), self.depth_T.clone()
        return other

    @torch.inference_mode()
    def read(self, tokens: Sequence[int] | torch.Tensor) -> torch.Tensor:
        """Append tokens and return the logits [V] after the last one. Raises UserError for an empty sequence."""
        tokens_N = torch.as_tensor(tokens, device=self.depth_T.device)
        if not len(tokens_N):
            raise UserError("a prompt has no token: give it one at least")
        # append the embeddings
        decoder = self.model.get_decoder()
        self._reached.add(decoder.embed_tokens(tokens_N))
        self.depth_T = torch.nn.functional.pad(self.depth_T, (0, len(tokens_N)))
        self._place_TL = torch.nn.functional.pad(self._place_TL, (0, 0, 0, len(tokens_N)))
        # compute the continuing tokens layer by layer; after each cut, keep the most important ones
        going_S = torch.arange(len(self), device=self.depth_T.device)
        with self._attending() as now:
            for number, layer in enumerate(self._layers):
                mine_M = going_S[self.depth_T[going_S] == number]
                stays = len(going_S) - self.how.going(len(self), number + 1, len(self._layers))
                now.layer, now.going_S, now.mine_M, now.is_cut = number, going_S, mine_M, stays > 0
                x_1ME = self._reached.states[mine_M][None]
                turns = decoder.rotary_emb(x_1ME, position_ids=mine_M[None])
                self._reached.states[mine_M] = layer(x_1ME, attention_mask=None, position_embeddings=turns, use_cache=False)[0]
                self.depth_T[mine_M] = number + 1
                if stays > 0:
                    going_S = self._most_read(going_S, now.importance_S, len(going_S) - stays)
        found_V: torch.Tensor = self.model.get_output_embeddings()(decoder.norm(self._reached.states[-1:]))[0]
        return found_V

    def _most_read(self, going_S: torch.Tensor, importance_S: torch.Tensor, count: int) -> torch.Tensor:
        is_kept_S = (going_S < self.how.sinks) | (going_S >= len(self) - self.how.recent)
        best = importance_S.masked_fill(is_kept_S, torch.inf).topk(count).indices
        return going_S[best.sort().values]

    @contextmanager
    def _attending(self) -> Iterator["_Now"]:
        """Restrict attention to the continuing tokens within the block; the model is restored after it."""
        now, name, config = _Now(), f"etude_lazy_{next(_numbers)}", self.model.config
        before = config._attn_implementation

        def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **rest: Any) -> tuple[Any, None]:
            return self._attend(now, query, torch.cat([key, value], -1)[0], rest.get("scaling") or query.shape[-1] ** -0.5), None

        AttentionInterface._global_mapping[name] = attend
        config._attn_implementation_internal = name
        try:
            yield now
        finally:
            config._attn_implementation_internal = before
            del AttentionInterface._global_mapping[name]

    def _attend(self, now: "_Now", query_1HMD: torch.Tensor, new_KMD: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the attention [1, M, H, D] of the tokens that a layer computes to the continuing ones, as transformers' functions do."""
        states, going_S, mine_M = self._states[now.layer], now.going_S, now.mine_M
        self._place_TL[mine_M, now.layer] = states.length + torch.arange(len(mine_M), device=mine_M.device)
        states.add(new_KMD)
        keys_KSD, values_KSD = states.states[:, self._place_TL[going_S, now.layer]].chunk(2, -1)
        is_whole = len(mine_M) == len(going_S)
        seen_MS = None if is_whole or len(mine_M) == 1 else going_S <= mine_M[:, None]  # a single one is the last token, which sees all
        read_1HMD = scaled_dot_product_attention(
            query_1HMD, keys_KSD[None], values_KSD[None], attn_mask=seen_MS, is_causal=is_whole, scale=scale, enable_gqa=True
        )
        if now.is_cut:
            queries_KRD = query_1HMD[0, :, -1].unflatten(0, (len(keys_KSD), -1))
            now.importance_S = weights(queries_KRD, keys_KSD, scale).mean((0, 1))
        return read_1HMD.transpose(1, 2)


class _Now:
    """Inputs of a layer's attention, and the importance that it returns."""

    layer: int
    going_S: torch.Tensor
    mine_M: torch.Tensor
    is_cut: bool
    importance_S: torch.Tensor


@dataclass
class _Grown:
    """A tensor with spare room along one dimension."""

    room: torch.Tensor
    along: int
    length: int = 0

    @staticmethod
    def of(shape: Sequence[int], along: int, like: torch.Tensor) -> "_Grown":
        return _Grown(like.new_empty(shape), along)

    @property
    def states(self) -> torch.Tensor:
        return self.room.narrow(self.along, 0, self.length)

    @property
    def bytes(self) -> int:
        return self.room.numel() * self.room.element_size()

    def add(self, more: torch.Tensor) -> None:
        """Append states; without room, reallocate with an eighth to spare."""
        end = self.length + more.shape[self.along]
        if end > self.room.shape[self.along]:
            shape = list(self.room.shape)
            shape[self.along] = end + end // 8
            room = self.room.new_empty(shape)
            room.narrow(self.along, 0, self.length).copy_(self.states)
            self.room = room
        self.room.narrow(self.along, self.length, end - self.length).copy_(more)
        self.length = end

    def copy(self) -> "_Grown":
        return _Grown(self.room.clone(), self.along, self.length)


# ---------------------------------------------------------------------- the engine's view


@dataclass(frozen=True)
class LazyView:
    """The engine's view of lazily computed texts."""

    name: str
    policy: LazyTokens
    peak: Peak = field(default_factory=Peak, compare=False, repr=False)

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, shared: SharedPrefixForward | None = None
    ) -> tuple[PrefilledPrompts, torch.Tensor]:
        texts = [LazyText(model, self.policy) for _ in prompts]
        logits_BV = torch.stack([text.read(prompt) for text, prompt in zip(texts, prompts, strict=True)])
        return LazyContext(texts, self.peak), logits_BV

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        return self.policy.held_tokens(prompt_tokens, new_tokens)

    def take_peak_bytes(self) -> int:
        return self.peak.take()


@dataclass
class LazyContext:
    """Decoding rows, each a text of its own."""

    texts: list[LazyText]
    peak: Peak
    copies: bool = True

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def length_B(self) -> torch.Tensor:
        """Number of tokens of each row."""
        return torch.tensor([len(text) for text in self.texts])

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return LazyContext([self.texts[row].copy() for row in rows_B.tolist()], self.peak)

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        rows = rows_B.tolist()
        self.texts = [self.texts[row] if row not in rows[:place] else self.texts[row].copy() for place, row in enumerate(rows)]

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        logits_BV = torch.stack([text.read(token[None]) for text, token in zip(self.texts, tokens_B, strict=True)])
        self.peak.see(sum(text.bytes for text in self.texts))
        return logits_BV
