"""Query-aware retrieval: every token stays in the cache, in pages, and each query reads the pages with the highest estimated attention.

Pages are selected for every generated token. A prompt reads everything; so does a later prompt, unless `full_prompts` is off: then each of
its tokens retrieves pages like a generated one. Unread pages can be offloaded. The model's device then holds the currently read pages, a
summary of every page, and each row's open page; with `stream_per_layer`, only the read pages of one layer at a time.

Sources: Quest (arXiv 2406.10774), ArkVale (Chen et al. 2024, NeurIPS), Loki (arXiv 2406.02542); formulas in `page_summaries`, `key_index`
and `page_selection`. Identity: `keep_ratio` 1 is full attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from etude.engine.protocols import View
from etude.errors import UserError, at_least, unknown
from etude.kernels.tables import SKETCHED
from etude.kv_cache.budgets import check_budget, tokens_of
from etude.kv_cache.cache_layer import Forward
from etude.kv_cache.cache_policy import CachePolicy, R_co, RowMaker
from etude.kv_cache.offload import Offload
from etude.kv_cache.page_summaries import INDEXES, Index, width_of
from etude.kv_cache.paged_layer import PagedCacheLayer
from etude.kv_cache.sparse_prefill import SparsePrefill
from etude.kv_cache.view import PolicyView


@dataclass(frozen=True)
class PagedRetrieval(CachePolicy):
    """A policy that retrieves the most important pages. Without a budget, or with `keep_ratio` 1, it is full attention.

    Settings of a command set the fields of `options`; the others are set in Python, with `dataclasses.replace`.
    """

    options: ClassVar[tuple[str, ...]] = (
        *("keep_ratio", "budget_tokens"),
        *("page_tokens", "offload", "folder", "stream_per_layer", "prefetch_pages", "full_attention_layers"),
    )
    is_retrieval: ClassVar[bool] = True

    digest: Index = "cuboid"
    """How pages are ranked without reading them: by a summary of each (`bounds`, `cuboid` or `mean`), or by an index of single keys
    (`sketch`), with which a head reads single tokens instead of pages."""
    budget_tokens: int | None = None
    """Budget: tokens of a row that a head reads, including the first and the open page, in whole pages unless `digest` is `sketch`; or"""
    keep_ratio: float | None = None
    """the share of the row's tokens so far."""
    page_tokens: int = 16
    offload: Offload = "none"
    """Place of pages: `none`: the model's device; `memory`: the host's memory, for a model on a GPU; `file`: a memory-mapped file."""
    folder: str | None = None
    """The folder of that file; default: the system's folder for temporary files."""
    stream_per_layer: bool = False
    """Whether pages are streamed: a layer's pages are released before the next layer reads. This needs the memory of one layer; every token
    fetches all of its pages again."""
    prefetch_pages: int = 0
    """Number of pages of each head to prefetch from the file for the next token, ranked directly after the read ones; tokens with `sketch`.
    """
    full_attention_layers: int = 0
    """Number of first layers that read everything; two in Quest and ArkVale."""
    sparse: SparsePrefill | None = None
    """The blocks of keys that the queries of a prompt read; None: all."""
    full_prompts: bool = True
    """Whether a later prompt reads everything, like the first one; False: each of its tokens retrieves pages like a generated token."""

    def __post_init__(self) -> None:
        if self.digest not in INDEXES:
            raise unknown("digest", self.digest, INDEXES)
        check_budget(self.budget_tokens, self.keep_ratio)
        at_least("page_tokens", self.page_tokens, 1)
        if self.digest == "sketch" and self.page_tokens != SKETCHED:
            raise UserError(
                f"page_tokens is {self.page_tokens}, but sketches lie together for {SKETCHED} tokens, of which each is read alone: leave "
                "page_tokens out"
            )
        at_least("full_attention_layers", self.full_attention_layers, 0)
        at_least("prefetch_pages", self.prefetch_pages, 0)
        if self.prefetch_pages and self.offload != "file":
            raise UserError(
                f"prefetch_pages is {self.prefetch_pages} but offload is {self.offload!r}, so it has no effect: set offload to 'file'"
            )
        least = self.page_tokens + self.unit_tokens
        if self.budget_tokens is not None and self.budget_tokens < least:
            fewer = f", or page_tokens to {max(1, self.budget_tokens // 2)} or less" if self.unit_tokens > 1 else ""
            raise UserError(
                f"budget_tokens is {self.budget_tokens}, but a head reads its open page, of up to {self.page_tokens} tokens, and at least "
                f"{self.unit_tokens} beside: set budget_tokens to {least} or more{fewer}"
            )
        if self.offload not in ("none", "memory", "file"):
            raise unknown("offload", self.offload, ("none", "memory", "file"))
        if self.stream_per_layer and self.offload == "none":
            raise UserError(
                "stream_per_layer is set but offload is 'none', so it has no effect: set offload to 'file', or to 'memory' on a GPU"
            )
        if self.stream_per_layer and self.prefetch_pages:
            raise UserError(
                f"prefetch_pages is {self.prefetch_pages}, which asks for what ranks behind that which stays, and with stream_per_layer "
                "nothing does: leave one of them out"
            )
        if self.folder is not None and self.offload != "file":
            raise UserError(f"folder is {self.folder} but offload is {self.offload!r}, so it has no effect: set offload to 'file'")
        if self.folder is not None and not Path(self.folder).is_dir():
            raise UserError(f"folder {self.folder} does not exist: name a folder for offloaded pages")

    def layer(self, forward: Forward, number: int, layers: int) -> PagedCacheLayer:
        return PagedCacheLayer(forward, self, number, layers)

    def view(self, name: str) -> View | None:
        return PolicyView(name, self)

    def rows(self, prompt: RowMaker[R_co], policies: Sequence[CachePolicy]) -> R_co:
        return prompt.paged(policies)

    def as_generated(self) -> Self:
        return replace(self, full_prompts=False)

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return how many tokens a row holds on the model's device, in a layer that is not dense.

        Summaries count by their size, the directions of a key index as those of a head of width 128. Streamed pages count in full, as in
        the layer that computes.
        """
        tokens = prompt_tokens + new_tokens
        read = self.units(tokens, self.full_attention_layers) * self.unit_tokens + self.page_tokens
        near = tokens if self.offload == "none" else min(tokens, read)
        return near + round(tokens // self.page_tokens * self.digest_tokens) + (32 if self.digest == "sketch" else 0)

    @property
    def digest_tokens(self) -> float:
        """The size of a page's summary, in units of one token's keys and values; of a key index in half precision."""
        return self.page_tokens / 32 if self.digest == "sketch" else width_of(self.digest, 2) / 4

    @property
    def unit_tokens(self) -> int:
        """Tokens of a full page that are read together."""
        return 1 if self.digest == "sketch" else self.page_tokens

    def units(self, seen: int, layer: int) -> int:
        """Return how many units of full pages a head of this layer reads of a row of `seen` tokens, in addition to the open page."""
        of_page = self.page_tokens // self.unit_tokens
        full = seen // self.page_tokens * of_page
        if layer < self.full_attention_layers or self.keeps_all:
            return full
        return min(full, max(1, (tokens_of(self.budget_tokens, self.keep_ratio, seen) - self.page_tokens) // self.unit_tokens))
