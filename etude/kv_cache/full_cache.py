"""The full cache as a policy: every token is kept and read."""

from dataclasses import dataclass, field
from typing import ClassVar

from etude.engine.protocols import View
from etude.errors import UserError
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.scores.score import Score
from etude.kv_cache.scores.streaming_llm import StreamingLLM


@dataclass(frozen=True)
class FullCache(EvictionPolicy):
    """Eviction without a budget. The engine samples under it from its own contexts, which are faster."""

    options: ClassVar[tuple[str, ...]] = ()
    score: Score = field(default_factory=StreamingLLM)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.keeps_all:
            raise UserError("the full cache has no budget: leave keep_ratio and budget_tokens out, or choose a policy such as snapkv")

    def view(self, name: str) -> View | None:
        return None


FULL = FullCache()
