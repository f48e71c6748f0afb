"""KV cache eviction: a score ranks the cached tokens, and a budget limits how many each layer and head keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch

from etude.engine.protocols import View
from etude.errors import UserError, at_least
from etude.kv_cache.budgets import Spread, check_budget, chosen, of_layers, tokens_of
from etude.kv_cache.cache_layer import Forward
from etude.kv_cache.cache_policy import CachePolicy, R_co, RowMaker
from etude.kv_cache.evicting_layer import EvictingCacheLayer
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Reconstruction, Score
from etude.kv_cache.sparse_prefill import SparsePrefill
from etude.kv_cache.view import PolicyView


@dataclass(frozen=True)
class EvictionPolicy(CachePolicy):
    """A policy that evicts the least important tokens. Without a budget, or with `keep_ratio` 1, it is the full cache.

    Settings of a command set the fields of `options`; the others are set in Python, with `dataclasses.replace`.
    """

    options: ClassVar[tuple[str, ...]] = ("keep_ratio", "budget_tokens", "every_tokens", "rerotate")

    score: Score
    budget_tokens: int | None = None
    """Budget: tokens of a row that a head keeps, averaged over layers and heads; or"""
    keep_ratio: float | None = None
    """the share of the row's tokens so far."""
    sinks: int = 4
    """Number of a row's first tokens (attention sinks) that are always kept."""
    layers: Spread = "uniform"
    """Split of the budget over layers: `uniform`; `pyramid`; `all`: to the most important tokens of any layer."""
    slope: float = 20.0
    """For `pyramid`: the mean budget divided by that of the last layer, both without the recent tokens; 1 is `uniform`."""
    by_head: bool = False
    """Whether the heads of a layer share its budget by importance (Ada-KV); under `all` they do."""
    least_share: float = 0.2
    """The minimum share of the even budget for each head, if heads share a budget."""
    sparse: SparsePrefill | None = None
    """The blocks of keys that the queries of a prompt read; None: all."""
    every_tokens: int = 16
    """Evict after this number of generated tokens; 0: evict only from prompts."""

    rerotate: bool = False
    """Whether kept keys are rotated to positions within the cache, as in StreamingLLM, so that positions stay about as low as the budget
    after the first prompt. By default, positions are those of the text."""

    def __post_init__(self) -> None:
        if self.rerotate and (self.score.reconstruction or self.score.moments_from is not None):
            raise UserError("rerotate moves keys, but this score goes by places in the text: take another score, or leave rerotate out")
        check_budget(self.budget_tokens, self.keep_ratio)
        if self.slope < 1:
            raise UserError(f"slope must be at least 1 (as many in every layer), got {self.slope}")
        if not 0 <= self.least_share <= 1:
            raise UserError(f"least_share must be in [0, 1], got {self.least_share}")
        if self.score.reconstruction and self.layers == "pyramid":
            raise UserError("a score by replay is of all layers at once: set layers to 'all', or 'uniform'")
        for name in ("sinks", "every_tokens"):
            at_least(name, getattr(self, name), 0)

    def layer(self, forward: Forward, number: int, layers: int) -> EvictingCacheLayer:
        return EvictingCacheLayer(forward, self, number, layers)

    def view(self, name: str) -> View | None:
        return PolicyView(name, self)

    def rows(self, prompt: RowMaker[R_co], policies: Sequence[CachePolicy]) -> R_co:
        return prompt.evicted(policies)

    @property
    def scores(self) -> tuple[Score, ...]:
        return (self.score,)

    @property
    def reconstruction(self) -> Reconstruction | None:
        return self.score.reconstruction

    @property
    def unused(self) -> frozenset[str]:
        return frozenset({"every_tokens"} if self.score.reconstruction else ())

    def for_tokenizer(self, tokenizer: Any) -> Self:
        return replace(self, score=self.score.for_tokenizer(tokenizer))

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return the maximum number of tokens of a row after its prompt, averaged over layers and heads."""
        tokens = prompt_tokens + new_tokens
        if self.keeps_all:
            return tokens
        if self.drops_while_generating:
            return min(tokens, self._even(tokens) + self.every_tokens)
        return min(tokens, self._even(prompt_tokens) + new_tokens)

    @property
    def drops_while_generating(self) -> bool:
        return self.every_tokens > 0 and self.score.reconstruction is None and not self.keeps_all

    def budget(self, seen: int, layer: int, layers: int) -> int:
        """Return how many of a row's `seen` tokens this layer keeps, averaged over its heads."""
        if self.keeps_all:
            return seen
        even, recent = self._even(seen), self.sinks + self.recent(seen)
        return of_layers(self.layers, even, layers=layers, seen=seen, recent=recent, slope=self.slope)[layer]

    def recent(self, seen: int) -> int:
        """Return how many of the last tokens every layer always keeps, by the even budget."""
        return self.score.recent(self._even(seen))

    def _even(self, seen: int) -> int:
        return min(seen, tokens_of(self.budget_tokens, self.keep_ratio, seen))

    @property
    def spreads(self) -> bool:
        """Whether heads may keep different numbers of tokens."""
        return self.by_head or self.layers == "all"

    def kept(self, inputs: Sequence[ScoreInputs]) -> list[list[torch.Tensor]]:
        """Select the slots of a row that each head of these layers keeps, in order of position: the first tokens, the last ones, and the
        most important others. `inputs`: of one layer, or of all layers if the budget is spread over `all`.

        Raises ValueError for a score that gives NaN.
        """
        importances = [self._importance(each) for each in inputs]
        slots = max(importance_HT.shape[1] for importance_HT in importances)
        padded = [torch.nn.functional.pad(each, (0, slots - each.shape[1]), value=-torch.inf) for each in importances]
        found = chosen(torch.cat(padded), inputs[0].budget, by_head=self.spreads, least_share=self.least_share)
        ends = accumulate(map(len, importances))
        return [found[end - len(each) : end] for end, each in zip(ends, importances, strict=True)]

    def _importance(self, inputs: ScoreInputs) -> torch.Tensor:
        importance_HT = _rounded((self.score(inputs) if self.score.goes_by_budget else inputs.once(self.score)).double())
        if importance_HT.isnan().any():
            raise ValueError(f"{type(self.score).__name__} gives importance that is no number (layer {inputs.layer})")
        largest = torch.finfo(torch.float64).max
        is_recent_HT = inputs.position_HT >= inputs.seen - inputs.recent
        importance_HT = importance_HT.clamp(max=largest / 4)
        importance_HT = torch.where(is_recent_HT, largest / 4 * (2 + inputs.position_HT.double() / inputs.seen), importance_HT)
        return importance_HT.masked_fill(inputs.position_HT < self.sinks, largest).masked_fill(~inputs.is_there_HT, -torch.inf)


def _rounded(importance_HT: torch.Tensor) -> torch.Tensor:
    """Round to 16 bits, so that the choice between two equal tokens does not depend on the batch, on which the last of float32's 24 bits
    depend. Values on either side of a rounding boundary still differ, which is rare.
    """
    mantissa_HT, exponent_HT = torch.frexp(importance_HT)
    return torch.ldexp((mantissa_HT * 2**16).round() / 2**16, exponent_HT)
