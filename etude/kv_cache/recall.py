"""Nothing is lost: keys and values lie in pages, and each query reads those that promise most, or the tokens of them that do.

Which they are is decided anew at every token that is generated; a prompt is read in full, a later one too unless each of its tokens is to
read as if it were generated. Pages can lie further away than the model (`offload`), so that beside it there is only as much as is read at a
time, what is known of all, and each row's open page; or, of what is read, only what one layer reads (`passing`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etude.errors import UserError, at_least, unknown
from etude.kernels.tables import SKETCHED
from etude.kv_cache.budgets import check_budget, is_everything, tokens_of
from etude.kv_cache.digests import DIGESTS, width_of
from etude.kv_cache.settings import Offload
from etude.kv_cache.sparse import Sparse

Known = Literal["bounds", "cuboid", "mean", "sketch"]
KNOWN: tuple[Known, ...] = (*DIGESTS, "sketch")


@dataclass(frozen=True)
class Recall:
    """How much of a context is read, and where the rest is. Without a budget, or with `keep_ratio` 1, all is: full attention."""

    digest: Known = "cuboid"
    """What is known of a page that is not read: `bounds`, `cuboid` or `mean`; or of its keys, a `sketch` of each: then a head reads single
    tokens of it, not whole pages."""
    budget_tokens: int | None = None
    """Tokens that a head reads of a row, the first and the open page among them, in whole pages but under a `sketch`; or"""
    keep_ratio: float | None = None
    """the share of the row's tokens so far."""
    page_tokens: int = 16
    offload: Offload = "none"
    """`none`: pages lie where the model computes; `memory`: in the host's memory (of a model on a GPU); `file`: in a memory-mapped file."""
    folder: str | None = None
    """Of that file; the system's own for temporary files unless given."""
    passing: bool = False
    """Whether what a layer has read leaves again before the next one reads, so that beside the model, of many layers, lies little however
    much is read; all of it is brought anew for every token."""
    ahead_pages: int = 0
    """Of each head, beside those that it reads, the pages, or under a `sketch` the tokens, that promise most: they are asked for from the
    file while the model computes on, for the next token."""
    dense_layers: int = 0
    """First layers that read everything; Quest and ArkVale leave two."""
    sparse: Sparse | None = None
    """Which blocks a prompt's queries read; None: all."""
    full_prompts: bool = True
    """Whether the tokens of a later prompt read everything, as those of the first one do."""

    def __post_init__(self) -> None:
        if self.digest not in KNOWN:
            raise unknown("digest", self.digest, KNOWN)
        check_budget(self.budget_tokens, self.keep_ratio)
        at_least("page_tokens", self.page_tokens, 1)
        if self.digest == "sketch" and self.page_tokens != SKETCHED:
            raise UserError(
                f"page_tokens is {self.page_tokens}, but sketches lie together for {SKETCHED} tokens, of which each is read alone: leave "
                "page_tokens out"
            )
        at_least("dense_layers", self.dense_layers, 0)
        at_least("ahead_pages", self.ahead_pages, 0)
        if self.ahead_pages and self.offload != "file":
            raise UserError(
                f"ahead_pages is {self.ahead_pages} but offload is {self.offload!r}, so it has no effect: set offload to 'file'"
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
        if self.passing and self.offload == "none":
            raise UserError("passing is set but offload is 'none', so it has no effect: set offload to 'file', or to 'memory' on a GPU")
        if self.passing and self.ahead_pages:
            raise UserError(
                f"ahead_pages is {self.ahead_pages}, which asks for what ranks behind that which stays, and with passing nothing does: "
                "leave one of them out"
            )
        if self.folder is not None and self.offload != "file":
            raise UserError(f"folder is {self.folder} but offload is {self.offload!r}, so it has no effect: set offload to 'file'")
        if self.folder is not None and not Path(self.folder).is_dir():
            raise UserError(f"folder {self.folder} does not exist: name a folder for offloaded pages")

    @property
    def keeps_all(self) -> bool:
        """Whether every query reads everything."""
        return is_everything(self.budget_tokens, self.keep_ratio)

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """What a row holds where the model computes in a layer that is not dense, digests by what they take, directions of sketches by what
        those of a head of width 128 do. What passes is counted in full, as the layer that computes holds it.
        """
        tokens = prompt_tokens + new_tokens
        read = self.units(tokens, self.dense_layers) * self.unit_tokens + self.page_tokens
        near = tokens if self.offload == "none" else min(tokens, read)
        return near + round(tokens // self.page_tokens * self.digest_tokens) + (32 if self.digest == "sketch" else 0)

    @property
    def digest_tokens(self) -> float:
        """What a page's digest takes, in tokens' keys and values; of a sketch in half precision."""
        return self.page_tokens / 32 if self.digest == "sketch" else width_of(self.digest, 2) / 4

    @property
    def unit_tokens(self) -> int:
        """Tokens of a full page that are read together or not."""
        return 1 if self.digest == "sketch" else self.page_tokens

    def units(self, seen: int, layer: int) -> int:
        """How many units of full pages a head of this layer reads of a row, beside its open page."""
        of_page = self.page_tokens // self.unit_tokens
        full = seen // self.page_tokens * of_page
        if layer < self.dense_layers or self.keeps_all:
            return full
        return min(full, max(1, (tokens_of(self.budget_tokens, self.keep_ratio, seen) - self.page_tokens) // self.unit_tokens))
