"""What every cache policy answers: eviction (`eviction`), paged retrieval (`retrieval`), LazyLLM (`lazyllm`) and the full cache.

A policy makes the cache layers that follow it, the engine's view of it, and what an evaluation or a command needs to know of it, so that
nobody asks which kind it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, Self, TypeVar

from etude.engine.protocols import View
from etude.kv_cache.budgets import is_everything
from etude.kv_cache.cache_layer import Forward, PolicyCacheLayer
from etude.kv_cache.scores.score import Reconstruction, Score
from etude.kv_cache.sparse_prefill import SparsePrefill

R_co = TypeVar("R_co", covariant=True)


class RowMaker(Protocol[R_co]):
    """Makes one row for each policy from a prompt that was read once (`etude.evaluation.long.multi_policy`)."""

    def evicted(self, policies: Sequence[Any]) -> R_co: ...

    def paged(self, policies: Sequence[Any]) -> R_co: ...

    def lazy(self, policies: Sequence[Any]) -> R_co: ...


class CachePolicy(ABC):
    """How the KV cache of a model is kept small, read in part or computed in part."""

    options: ClassVar[tuple[str, ...]]
    """Settings of a command that the policy reads (`KVCacheSettings`)."""
    is_retrieval: ClassVar[bool] = False
    """Whether every token stays in the cache and each query reads some of them."""
    reads_own_prompt: ClassVar[bool] = False
    """Whether an evaluation has to compute the prompt once more under the policy, since it is not that of full attention."""

    budget_tokens: int | None
    keep_ratio: float | None
    rerotate: bool = False
    sparse: SparsePrefill | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether every query reads every token: there is no budget, or `keep_ratio` is 1."""
        return is_everything(self.budget_tokens, self.keep_ratio)

    @abstractmethod
    def layer(self, forward: Forward, number: int, layers: int) -> PolicyCacheLayer:
        """Make the cache layer for the `number`th of so many full-attention layers."""

    @abstractmethod
    def view(self, name: str) -> View | None:
        """Make the engine's view of contexts under the policy; None: the engine's own contexts. `name` is recorded on each attempt."""

    @abstractmethod
    def rows(self, prompt: RowMaker[R_co], policies: Sequence["CachePolicy"]) -> R_co:
        """Have one row made for each of these policies, which are of this kind."""

    @abstractmethod
    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return how many tokens a row holds at most where the model computes, on average over layers and heads."""

    def budget(self, seen: int, layer: int, layers: int) -> int:
        """Return how many of `seen` tokens a head of this layer keeps, on average over its heads: all, unless the policy evicts."""
        return seen

    @property
    def scores(self) -> tuple[Score, ...]:
        """What ranks tokens for eviction; empty where nothing is evicted."""
        return ()

    @property
    def reconstruction(self) -> Reconstruction | None:
        """How a prompt is read once more before eviction (KVzip); None: it is not."""
        return None

    @property
    def unused(self) -> frozenset[str]:
        """Those of `options` that have no effect on this policy."""
        return frozenset()

    def for_tokenizer(self, tokenizer: Any) -> Self:
        """Return the policy with its words as tokens of this tokenizer."""
        return self

    def as_generated(self) -> Self:
        """Return the policy under which each token of a later prompt reads what a generated token would."""
        return self

    def with_options(self, **options: Any) -> Self:
        """Return a copy with these fields, such as `keep_ratio=0.25`; None leaves a field as it is.

        Raises UserError for values that the policy does not allow.
        """
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[type-var]
