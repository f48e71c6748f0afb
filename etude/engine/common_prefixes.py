"""Prefix caching for a server: keys and values of what many prompts begin with, such as a system message, are computed once.

What two prompts in a row have in common is kept, from the first token on. A later prompt takes as much of it as it begins with, as a copy,
and computes the rest. With `most` 0 nothing is kept, and every prompt is computed whole. vLLM's automatic prefix caching keeps all prompts
instead, in blocks, as long as there is memory.
"""

from collections.abc import Sequence

import torch

from etude.engine.blocks import BlockPrompts, Segment, Segments, length_of, truncate
from etude.engine.completion import Tokens
from etude.engine.protocols import Forward

_SHORTEST = 8
"""Fewest tokens worth keeping: copying has a price too."""


class CommonPrefixes:
    """Beginnings that prompts had in common; the one that was used longest ago makes room for a new one."""

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self.num_copied = 0
        """Number of prompt tokens that were copied instead of computed."""
        self._kept: dict[Tokens, Segments] = {}
        self._last: Tokens = ()

    def prefill(self, forward: Forward, prompts: Sequence[Tokens]) -> tuple[BlockPrompts, torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them."""
        after = [self._beginning(prompt) for prompt in prompts]
        rest = [prompt[length_of(path) :] for prompt, path in zip(prompts, after, strict=True)]
        opened, logits_PV = BlockPrompts.prefill(forward, rest, after)
        self.num_copied += sum(map(length_of, after))
        for place, prompt in enumerate(prompts):
            self._keep(opened, place, prompt[: _common(self._last, prompt)])
            self._last = prompt
        return opened, logits_PV

    def _beginning(self, prompt: Tokens) -> Segments:
        """Return the longest kept beginning of a prompt, without its last token, whose logits are wanted."""
        best = max(self._kept, key=lambda kept: _common(kept, prompt), default=())
        length = _common(best, prompt)
        if length < _SHORTEST:
            return ()
        self._kept[best] = self._kept.pop(best)
        return truncate(self._kept[best], length)

    def _keep(self, opened: BlockPrompts, place: int, beginning: Tokens) -> None:
        if self.most == 0 or len(beginning) < _SHORTEST or any(kept[: len(beginning)] == beginning for kept in self._kept):
            return
        if len(self._kept) == self.most:
            del self._kept[next(iter(self._kept))]
        blocks = opened.blocks.only(torch.tensor([place]), len(beginning))
        self._kept[beginning] = (Segment(blocks, 0, len(beginning)),)


def _common(first: Tokens, prompt: Tokens) -> int:
    """Count the tokens that both begin with, other than the prompt's last."""
    equal = (one == other for one, other in zip(first, prompt[:-1], strict=False))
    return next((place for place, is_equal in enumerate(equal) if not is_equal), min(len(first), len(prompt) - 1))
