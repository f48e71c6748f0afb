"""The base class of cache policies: eviction (`eviction`), paged retrieval (`retrieval`), LazyLLM (`lazyllm`) and the full cache.

A policy creates its cache layers and the engine's view, and answers the questions of evaluations and commands, so that no code depends on
the kind of policy.
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
    """Creates one row for each policy from a prompt that was read once (`etude.evaluation.long.multi_policy`)."""

    def evicted(self, policies: Sequence[Any]) -> R_co: ...

    def paged(self, policies: Sequence[Any]) -> R_co: ...

    def lazy(self, policies: Sequence[Any]) -> R_co: ...


class CachePolicy(ABC):
    """A policy that evicts, partly reads or partly computes a model's KV cache."""

    options: ClassVar[tuple[str, ...]]
    """Settings of a command that the policy uses (`KVCacheSettings`)."""
    is_retrieval: ClassVar[bool] = False
    """Whether every token stays in the cache and each query reads some of them."""
    reads_own_prompt: ClassVar[bool] = False
    """Whether an evaluation must compute the prompt again under the policy, because it differs from full attention."""

    budget_tokens: int | None
    keep_ratio: float | None
    rerotate: bool = False
    sparse: SparsePrefill | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether every query reads every token: without a budget, or with `keep_ratio` 1."""
        return is_everything(self.budget_tokens, self.keep_ratio)

    @abstractmethod
    def layer(self, forward: Forward, number: int, layers: int) -> PolicyCacheLayer:
        """Create the cache layer of full-attention layer `number` of `layers`."""

    @abstractmethod
    def view(self, name: str) -> View | None:
        """Create the engine's view of contexts under the policy; None: the engine's own contexts. `name` is recorded on each attempt."""

    @abstractmethod
    def rows(self, prompt: RowMaker[R_co], policies: Sequence["CachePolicy"]) -> R_co:
        """Create one row for each of these policies, which are of this kind, by calling `prompt`."""

    @abstractmethod
    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return the maximum number of tokens of a row on the model's device, averaged over layers and heads."""

    def budget(self, seen: int, layer: int, layers: int) -> int:
        """Return how many of `seen` tokens this layer keeps, averaged over its heads: all, unless the policy evicts."""
        return seen

    @property
    def scores(self) -> tuple[Score, ...]:
        """The scores that rank tokens for eviction; empty without eviction."""
        return ()

    @property
    def reconstruction(self) -> Reconstruction | None:
        """How a prompt is read again before eviction (KVzip); None: it is not."""
        return None

    @property
    def unused(self) -> frozenset[str]:
        """The `options` that have no effect on this policy."""
        return frozenset()

    def for_tokenizer(self, tokenizer: Any) -> Self:
        """Return the policy with its texts tokenized by this tokenizer."""
        return self

    def as_generated(self) -> Self:
        """Return the policy under which each token of a later prompt is read like a generated token."""
        return self

    def with_options(self, **options: Any) -> Self:
        """Return a copy with these fields, such as `keep_ratio=0.25`; None leaves a field unchanged.

        Raises UserError for values that the policy does not allow.
        """
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[type-var]
