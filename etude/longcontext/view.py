"""A policy as a view of the engine: attempts are sampled from what it keeps, and their log-probs are those of the model that sees that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.engine.context import Context, CopiedContext, Opened
from etude.longcontext.attach import Attachment
from etude.longcontext.policy import Policy
from etude.longcontext.recall import Recall


@dataclass(frozen=True)
class KeptView:
    """Every prefill has an attachment of its own, which lives as long as its rows."""

    name: str
    policy: Policy | Recall

    def prefill(self, model: Any, prompts: Sequence[Sequence[int]], pad: int) -> tuple[Opened, torch.Tensor]:
        attachment = Attachment.to(model, self.policy)
        with attachment.installed():
            copied, logits_BV = CopiedContext.prefill(model, prompts, pad)
        return KeptContext(attachment, copied), logits_BV

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        return self.policy.held_tokens(prompt_tokens, new_tokens)


@dataclass
class KeptContext:
    """A context under a policy."""

    attachment: Attachment
    inner: Any
    copies: bool = True

    def __len__(self) -> int:
        return len(self.inner)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return KeptContext(self.attachment, self.inner.begin(rows_B, room_tokens, samples=samples))

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        self.inner.keep(rows_B, room_tokens)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        with self.attachment.installed():
            logits_BV: torch.Tensor = self.inner.next_logits(tokens_B)
        return logits_BV
