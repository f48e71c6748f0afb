"""Settings of a command for the engine's KV cache policy. They import torch only if a policy is set."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from etude.errors import UserError, unknown

if TYPE_CHECKING:
    from etude.engine.protocols import View
    from etude.kv_cache.cache_policy import CachePolicy

EVICTION_NAMES = (
    *("streaming", "h2o", "tova", "snapkv", "pyramid", "ada_snapkv", "key_norm", "key_diff", "expected_attention", "critical_snapkv"),
    *("kvzip", "random"),
)
"""The names of `etude.kv_cache.policies.EVICTION`."""
RETRIEVAL_NAMES = ("quest", "arkvale", "small_pages", "sketch")
"""The names of `etude.kv_cache.policies.RETRIEVAL`."""
VIEWS = ("full", *EVICTION_NAMES, *RETRIEVAL_NAMES, "lazy")
Offload = Literal["none", "memory", "file"]


@dataclass(frozen=True)
class KVCacheSettings:
    """KV cache policy during sampling, and its budget."""

    policy: str = "full"
    """`full` (no policy); eviction: `streaming` (keeps the first and last tokens), `h2o`, `tova`, `snapkv`, `pyramid`, `ada_snapkv`,
    `critical_snapkv`, `expected_attention`, `kvzip` (by attention), `key_norm`, `key_diff` (by keys), `random` (control); retrieval, which
    keeps all and reads a part: `quest`, `arkvale`, `small_pages` (pages), `sketch` (tokens); or `lazy` (LazyLLM: computes tokens only as
    far as they are read)."""
    keep_ratio: float | None = None
    """Budget: share of the tokens so far that a head keeps or reads, on average, in (0, 1] (kvpress: 1 - compression_ratio)."""
    budget_tokens: int | None = None
    """Budget: tokens that a head keeps or reads, on average; instead of `keep_ratio`."""
    every_tokens: int = 16
    """Generated tokens between evictions; 0 = evict only from prompts."""
    rerotate: bool = False
    """Rotate kept keys to positions within the cache (StreamingLLM); needs float32; not for `kvzip` and `expected_attention`."""
    page_tokens: int | None = None
    """Tokens per page, which are read together; null = 16 for `quest`, 32 for `arkvale`, 4 for `small_pages`. Not for `sketch`."""
    offload: Offload = "none"
    """Where unread pages are kept: `none` = with the model; `memory` = in host memory, for a model on a GPU; `file` = in a memory-mapped
    file."""
    folder: str | None = None
    """Folder of that file; null = the system's folder for temporary files."""
    stream_per_layer: bool = False
    """Stream pages: each layer releases what it has read before the next one reads, and fetches it again for every token."""
    prefetch_pages: int = 0
    """Pages per head to prefetch from the file for the next token (`sketch`: tokens); 0 = none."""
    full_attention_layers: int = 0
    """Number of first layers that read all pages (full attention)."""

    def __post_init__(self) -> None:
        if self.policy not in VIEWS:
            raise unknown("kv_cache.policy", self.policy, VIEWS)
        if self.policy != "full" and self.keep_ratio is None and self.budget_tokens is None:
            raise UserError(
                f"kv_cache.policy {self.policy} keeps everything without a budget: set kv_cache.keep_ratio (such as 0.25) or "
                "kv_cache.budget_tokens"
            )
        try:
            if self.is_on:
                self.cache_policy  # noqa: B018  # which checks the rest
        except UserError as error:
            raise UserError(f"kv_cache.{error}") from None

    @property
    def is_on(self) -> bool:
        return self.policy != "full"

    @property
    def name(self) -> str:
        """The policy and its budget, as recorded in attempts."""
        if not self.is_on:
            return "full"
        return f"{self.policy} " + (f"{self.keep_ratio:g}" if self.keep_ratio is not None else f"{self.budget_tokens} tokens")

    @property
    def cache_policy(self) -> "CachePolicy":
        """The cache policy of these settings. Raises UserError for values that it does not allow."""
        from etude.kv_cache.policies import policy_named  # which needs torch

        policy = policy_named(self.policy)
        return policy.with_options(**{name: getattr(self, name) for name in policy.options})

    def check_search(self, name: str, method: str) -> None:
        """Raise UserError for a search that continues parts of an answer. `name`: the setting of the search."""
        if self.is_on and method not in ("none", "samples"):
            raise UserError(
                f"{name} {method} goes on from pieces of an answer, which kv_cache.policy {self.policy} would read anew as a prompt, "
                "and keep others of them than of an answer in one go: leave one of them out"
            )

    def build_view(self, tokenizer: Any) -> "View | None":
        """Create the engine's view of contexts under the policy; None: the engine's own contexts."""
        return self.cache_policy.for_tokenizer(tokenizer).view(self.name) if self.is_on else None

    @property
    def unread(self) -> set[str]:
        """Settings that have no effect under this policy."""
        names = {each.name for each in fields(self)} - {"policy"}
        if not self.is_on:
            return names
        policy = self.cache_policy
        return names - set(policy.options) | policy.unused
