"""What an engine hands out: prefixes that can be extended, and finished completions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Finish = Literal["stop", "length"]

Tokens = tuple[int, ...]
Logprobs = Callable[[Sequence[tuple[Tokens, Tokens]]], list[tuple[float, ...]]]
"""(prompt, completion) pairs → the model's own log-prob of every completion token."""


@dataclass(frozen=True)
class Stop:
    """When a completion ends before its token limit."""

    tokens: frozenset[int] = frozenset()
    """Token ids that end it; the token is kept as the last own token."""
    strings: tuple[str, ...] = ()
    """Texts that end it, wherever they fall within tokens; the tokens that complete the text are kept."""
    pause: re.Pattern[str] | None = None
    """Found in the text of the tokens that were drawn since the completion was last extended, it ends a step: no more tokens are drawn, but
    the prefix is not finished."""


@dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt."""

    tokens: tuple[int, ...]
    """The sampled ids, an end token included."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs (natural) of `tokens` under the distribution they were sampled from."""
    text: str
    """Decoded, without special tokens and without a stop string."""
    finish: Finish
    """`stop`: an end token or a stop string; `length`: the token limit, so the attempt is truncated."""
    key: int
    """The random-number key it was drawn with."""
    policy_version: int
    """Number of updates behind the weights that sampled it."""
    view: str = "full"
    """How the engine saw the context."""


@dataclass
class Prefix:
    """Tokens whose keys and values an engine holds, so that they can be extended any number of times.

    A prefix dies with the policy version that made it: extending it after an update is an error.
    """

    tokens: tuple[int, ...]
    """All tokens: the prompt's, then own ones."""
    policy_version: int
    own_logprobs: tuple[float, ...] = ()
    """Behaviour log-probs of the own tokens, which are the last `len(own_logprobs)` of `tokens`."""
    finish: Finish | None = None
    """None while it may still be extended."""
    view: Any = field(default=None, repr=False)
    """The view that it was opened by, by which it is extended; None: none."""
    cached: Any = field(default=None, repr=False)
    """The engine's handle on the keys and values; None when released."""

    @property
    def own_tokens(self) -> tuple[int, ...]:
        return self.tokens[len(self.tokens) - len(self.own_logprobs) :]
