"""What the engine sees of a context, as it is told to a command; free of torch where nothing is dropped, so that settings are read and
checked without it."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from etude.errors import UserError, unknown

if TYPE_CHECKING:
    from etude.kv_cache.lazy import Lazy, LazyView
    from etude.kv_cache.policy import Policy
    from etude.kv_cache.recall import Recall
    from etude.kv_cache.view import KeptView

DROPPING_NAMES = (
    *("streaming", "h2o", "tova", "snapkv", "pyramid", "ada_snapkv", "key_norm", "key_diff", "expected_attention", "critical_snapkv"),
    *("kvzip", "random"),
)
"""The names of `etude.kv_cache.policies.DROPPING`."""
RECALLING_NAMES = ("quest", "arkvale", "small_pages", "sketch")
"""The names of `etude.kv_cache.policies.RECALLING`."""
VIEWS = ("full", *DROPPING_NAMES, *RECALLING_NAMES, "lazy")
Offload = Literal["none", "memory", "file"]
_OF_RECALL = ("page_tokens", "offload", "folder", "passing", "ahead_pages", "dense_layers")


@dataclass(frozen=True)
class EngineView:
    """How a context is kept small while tokens are sampled."""

    view: str = "full"
    """`full`; or what is kept of a context: `streaming` (its first and last tokens), `h2o`, `tova`, `snapkv`, `pyramid`, `ada_snapkv`,
    `critical_snapkv`, `expected_attention`, `kvzip` (by attention), `key_norm`, `key_diff` (by keys), `random` (the control); or what is
    read of it at a time, while nothing is lost: `quest`, `arkvale`, `small_pages` (in pages), `sketch` (token by token); or `lazy`: tokens
    are computed as far as they are read."""
    keep_ratio: float | None = None
    """The share of the tokens so far, or"""
    budget_tokens: int | None = None
    """a number of tokens, for a head on average."""
    every_tokens: int = 16
    """How many tokens may be above the budget while they are generated, before what is too much is dropped; 0: nothing is dropped then."""
    rerotate: bool = False
    """Whether positions are counted within what is kept, not within the text; in float32, of views that go by neither `kvzip`'s replay nor
    `expected_attention`."""
    page_tokens: int | None = None
    """Tokens that are read or not read together; 16 for `quest`, 32 for `arkvale`, 4 for `small_pages` unless given. Not of `sketch`."""
    offload: Offload = "none"
    """Where pages are that are not read: `none`, where the model computes; `memory`, the host's, for a model on a GPU; `file`."""
    folder: str | None = None
    """Of that file; the system's own for temporary files unless given."""
    passing: bool = False
    """Whether what a layer has read leaves again before the next one reads, and is brought anew for every token."""
    ahead_pages: int = 0
    """Pages of each head, beside those that it reads, that are asked for from the file while the model computes on; tokens of `sketch`."""
    dense_layers: int = 0
    """First layers that read all pages."""

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise unknown("engine.view", self.view, VIEWS)
        if self.view != "full" and self.keep_ratio is None and self.budget_tokens is None:
            raise UserError(
                f"engine.view {self.view} keeps everything without a budget: set engine.keep_ratio (such as 0.25) or engine.budget_tokens"
            )
        try:
            self.policy  # noqa: B018  # which checks the rest
        except UserError as error:
            raise UserError(f"engine.{error}") from None

    @property
    def is_on(self) -> bool:
        return self.view != "full"

    @property
    def policy(self) -> "Policy | Recall | Lazy | None":
        """None: the full context."""
        if not self.is_on:
            return None
        from etude.kv_cache.lazy import Lazy  # which needs torch, as the other policies do
        from etude.kv_cache.policies import DROPPING, RECALLING

        if self.view == "lazy":
            return Lazy(self.budget_tokens, self.keep_ratio)
        if self.view in DROPPING:
            budget = {"keep_ratio": self.keep_ratio, "budget_tokens": self.budget_tokens}
            return replace(DROPPING[self.view], **budget, every_tokens=self.every_tokens, rerotate=self.rerotate)  # type: ignore[arg-type]
        own = RECALLING[self.view]
        return replace(
            own,
            keep_ratio=self.keep_ratio,
            budget_tokens=self.budget_tokens,
            page_tokens=own.page_tokens if self.page_tokens is None else self.page_tokens,
            offload=self.offload,
            folder=self.folder,
            passing=self.passing,
            ahead_pages=self.ahead_pages,
            dense_layers=self.dense_layers,
        )

    def check_search(self, name: str, method: str) -> None:
        """Raise UserError for a search, called `name`, that goes on from pieces of an answer."""
        if self.is_on and method not in ("none", "samples"):
            raise UserError(
                f"{name} {method} goes on from pieces of an answer, which engine.view {self.view} would read anew as a prompt, and keep "
                "others of them than of an answer in one go: leave one of them out"
            )

    def of_engine(self, tokenizer: Any) -> "KeptView | LazyView | None":
        """As the engine takes it; its name stands on what is sampled under it."""
        policy = self.policy
        if policy is None:
            return None
        from etude.kv_cache.lazy import Lazy, LazyView
        from etude.kv_cache.policies import asking
        from etude.kv_cache.view import KeptView

        budget = f"{self.keep_ratio:g}" if self.keep_ratio is not None else f"{self.budget_tokens} tokens"
        name = f"{self.view} {budget}"
        return LazyView(name, policy) if isinstance(policy, Lazy) else KeptView(name, asking(policy, tokenizer))

    @property
    def unread(self) -> set[str]:
        """Settings that the view does not read."""
        names = {each.name for each in fields(self)} - {"view"}
        if self.view in RECALLING_NAMES:
            return {"every_tokens", "rerotate"}
        if self.view in DROPPING_NAMES:
            from etude.kv_cache.policies import DROPPING

            return {*_OF_RECALL, *(["every_tokens"] if DROPPING[self.view].score.replays else [])}
        return names - {"keep_ratio", "budget_tokens"} if self.view == "lazy" else names
