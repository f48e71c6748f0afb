"""What is kept of a context: a score, a budget and how it is spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from etude.errors import UserError, at_least
from etude.kv_cache.budgets import Layers, check_budget, chosen, is_everything, of_layers, tokens_of
from etude.kv_cache.held import Held
from etude.kv_cache.scores.score import Score
from etude.kv_cache.sparse import Sparse


@dataclass(frozen=True)
class Policy:
    """How the context of a model is kept small. Without a budget, or with `keep_ratio` 1, nothing is dropped: the full cache."""

    score: Score
    budget_tokens: int | None = None
    """Tokens that a head keeps of a row on average over layers and heads, or"""
    keep_ratio: float | None = None
    """the share of the row's tokens so far."""
    sinks: int = 4
    """First tokens of a row, kept whatever their importance."""
    layers: Layers = "uniform"
    """How the budget is spread over layers: `uniform`, `pyramid`, or over `all` of them by importance."""
    slope: float = 20.0
    """Of a pyramid: mean budget over the last layer's, beside the recent tokens."""
    by_head: bool = False
    """Whether heads that need more keep more, at the cost of others of their layer; over `all` layers they do."""
    least_share: float = 0.2
    """Of the even budget, what each head keeps at least then."""
    sparse: Sparse | None = None
    """Which blocks a prompt's queries read; None: all."""
    every_tokens: int = 16
    """How many tokens a row may be above its budget while it is generated, before what is too much goes; 0: nothing goes then."""

    rerotate: bool = False
    """Whether positions are counted within what a head keeps, as StreamingLLM does, so that behind the first prompt they stay about as low
    as its budget; or are those of the text."""

    def __post_init__(self) -> None:
        if self.rerotate and (self.score.replays or self.score.moments_from is not None):
            raise UserError("rerotate moves keys, but this score goes by places in the text: take another score, or leave rerotate out")
        check_budget(self.budget_tokens, self.keep_ratio)
        if self.slope < 1:
            raise UserError(f"slope must be at least 1 (as many in every layer), got {self.slope}")
        if not 0 <= self.least_share <= 1:
            raise UserError(f"least_share must be in [0, 1], got {self.least_share}")
        if self.score.replays and self.layers == "pyramid":
            raise UserError("a score by replay is of all layers at once: set layers to 'all', or 'uniform'")
        for name in ("sinks", "every_tokens"):
            at_least(name, getattr(self, name), 0)

    @property
    def keeps_all(self) -> bool:
        return is_everything(self.budget_tokens, self.keep_ratio)

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """What a row holds at most behind its prompt, on average over layers and heads."""
        tokens = prompt_tokens + new_tokens
        if self.keeps_all:
            return tokens
        if self.drops_while_generating:
            return min(tokens, self._even(tokens) + self.every_tokens)
        return min(tokens, self._even(prompt_tokens) + new_tokens)

    @property
    def drops_while_generating(self) -> bool:
        return self.every_tokens > 0 and not self.score.replays and not self.keeps_all

    def budget(self, seen: int, layer: int, layers: int) -> int:
        """Tokens that a head of this layer keeps of a row, on average over its heads."""
        if self.keeps_all:
            return seen
        even, recent = self._even(seen), self.sinks + self.recent(seen)
        return of_layers(self.layers, even, layers=layers, seen=seen, recent=recent, slope=self.slope)[layer]

    def recent(self, seen: int) -> int:
        """How many of the last tokens every layer keeps, by the even budget."""
        return self.score.recent(self._even(seen))

    def _even(self, seen: int) -> int:
        return min(seen, tokens_of(self.budget_tokens, self.keep_ratio, seen))

    @property
    def spreads(self) -> bool:
        """Whether heads may keep different numbers."""
        return self.by_head or self.layers == "all"

    def kept(self, helds: Sequence[Held]) -> list[list[torch.Tensor]]:
        """Which slots of a row each head of these layers keeps, in order: the first tokens, then the last ones, then by importance. One
        layer, or all where the budget is spread over all.
        """
        importances = [self._importance(held) for held in helds]
        slots = max(importance_HT.shape[1] for importance_HT in importances)
        padded = [torch.nn.functional.pad(each, (0, slots - each.shape[1]), value=-torch.inf) for each in importances]
        found = chosen(torch.cat(padded), helds[0].budget, by_head=self.spreads, least_share=self.least_share)
        ends = accumulate(map(len, importances))
        return [found[end - len(each) : end] for end, each in zip(ends, importances, strict=True)]

    def _importance(self, held: Held) -> torch.Tensor:
        importance_HT = _rounded((self.score(held) if self.score.goes_by_budget else held.once(self.score)).double())
        if importance_HT.isnan().any():
            raise ValueError(f"{type(self.score).__name__} gives importance that is no number (layer {held.layer})")
        largest = torch.finfo(torch.float64).max
        is_recent_HT = held.position_HT >= held.seen - held.recent
        importance_HT = importance_HT.clamp(max=largest / 4)
        importance_HT = torch.where(is_recent_HT, largest / 4 * (2 + held.position_HT.double() / held.seen), importance_HT)
        return importance_HT.masked_fill(held.position_HT < self.sinks, largest).masked_fill(~held.is_there_HT, -torch.inf)


def _rounded(importance_HT: torch.Tensor) -> torch.Tensor:
    """To 16 bits, so that the same token twice is as important whatever a batch computes beside it: its numbers differ in the last of 24
    bits. Two that fall on either side of a step of the 16 still differ, which is rare.
    """
    mantissa_HT, exponent_HT = torch.frexp(importance_HT)
    return torch.ldexp((mantissa_HT * 2**16).round() / 2**16, exponent_HT)
