"""Nothing is lost: keys and values lie in pages, and each query reads those that promise most.

Which pages a token reads is decided anew at every token that is generated; a prompt is read in full, a later one too unless each of its
tokens is to read as if it were generated. Pages can lie further away than the model (`offload`), so that beside it there are only as many
as are read at a time, their digests, and each row's open page.
"""

from dataclasses import dataclass
from pathlib import Path

from etude.errors import UserError, at_least, unknown
from etude.longcontext.budgets import check_budget, is_everything, tokens_of
from etude.longcontext.digests import DIGESTS, Digest, width_of
from etude.longcontext.sparse import Sparse
from etude.longcontext.tiers import Offload


@dataclass(frozen=True)
class Recall:
    """How much of a context is read, and where the rest is. Without a budget, or with `keep_ratio` 1, all is: full attention."""

    digest: Digest = "cuboid"
    """What is known of a page that is not read: `bounds`, `cuboid` or `mean`."""
    budget_tokens: int | None = None
    """Tokens that a head reads of a row, the first and the open page among them, in whole pages; or"""
    keep_ratio: float | None = None
    """the share of the row's tokens so far."""
    page_tokens: int = 16
    offload: Offload = "none"
    """`none`: pages lie where the model computes; `memory`: in the host's memory (of a model on a GPU); `file`: in a memory-mapped file."""
    folder: str | None = None
    """Of that file; the system's own for temporary files unless given."""
    ahead_pages: int = 0
    """Of each head, beside those that it reads, the pages that promise most: they are asked for from the file while the model computes on,
    for the next token."""
    dense_layers: int = 0
    """First layers that read everything; Quest and ArkVale leave two."""
    sparse: Sparse | None = None
    """Which blocks a prompt's queries read; None: all."""
    full_prompts: bool = True
    """Whether the tokens of a later prompt read everything, as those of the first one do."""

    def __post_init__(self) -> None:
        if self.digest not in DIGESTS:
            raise unknown("digest", self.digest, DIGESTS)
        check_budget(self.budget_tokens, self.keep_ratio)
        at_least("page_tokens", self.page_tokens, 1)
        at_least("dense_layers", self.dense_layers, 0)
        at_least("ahead_pages", self.ahead_pages, 0)
        if self.ahead_pages and self.offload != "file":
            raise UserError(
                f"ahead_pages is {self.ahead_pages} but offload is {self.offload!r}, so it has no effect: set offload to 'file'"
            )
        if self.budget_tokens is not None and self.budget_tokens < 2 * self.page_tokens:
            raise UserError(
                f"budget_tokens is {self.budget_tokens}, but a head reads two pages of {self.page_tokens} tokens, one of them open: set "
                f"budget_tokens to {2 * self.page_tokens} or more, or page_tokens to {max(1, self.budget_tokens // 2)} or less"
            )
        if self.offload not in ("none", "memory", "file"):
            raise unknown("offload", self.offload, ("none", "memory", "file"))
        if self.folder is not None and self.offload != "file":
            raise UserError(f"folder is {self.folder} but offload is {self.offload!r}, so it has no effect: set offload to 'file'")
        if self.folder is not None and not Path(self.folder).is_dir():
            raise UserError(f"folder {self.folder} does not exist: name a folder for offloaded pages")

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """What a row holds where the model computes in a layer that is not dense, digests by what they take."""
        tokens = prompt_tokens + new_tokens
        near = tokens if self.offload == "none" else min(tokens, (self.pages(tokens, self.dense_layers) + 1) * self.page_tokens)
        return near + round(tokens // self.page_tokens * self.digest_tokens)

    @property
    def digest_tokens(self) -> float:
        """What a page's digest takes, in tokens' keys and values."""
        return width_of(self.digest, 2) / 4

    def pages(self, seen: int, layer: int) -> int:
        """How many full pages a head of this layer reads of a row, beside its open one."""
        full = seen // self.page_tokens
        if layer < self.dense_layers or is_everything(self.budget_tokens, self.keep_ratio):
            return full
        return min(full, max(1, tokens_of(self.budget_tokens, self.keep_ratio, seen) // self.page_tokens - 1))
