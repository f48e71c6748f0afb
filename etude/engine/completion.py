"""What an engine returns: prefixes that can be extended, and finished completions."""

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
    """What ends a completion before its token limit."""

    tokens: frozenset[int] = frozenset()
    """Token ids that end it; the token is kept as the last one."""
    strings: tuple[str, ...] = ()
    """Texts that end it, wherever they fall within tokens; the tokens that complete a text are kept."""
    pause: re.Pattern[str] | None = None
    """A pattern that ends a step: once the text that this extension sampled contains it, no more is sampled, but the prefix is not
    finished."""


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
    """The key of its random numbers."""
    policy_version: int
    """Number of updates of the weights that sampled it."""
    view: str = "full"
    """Name of the view by which the engine saw the context; `full`: none."""


@dataclass(frozen=True)
class JointCompletion:
    """One answer to several prefixes."""

    completion: Completion
    """Its log-probs are those of the joined distribution."""
    agreement: tuple[float, ...]
    """For each token the share, by weight, of the prefixes whose own likeliest token it was."""


@dataclass
class Prefix:
    """Tokens whose keys and values an engine holds, so that they can be extended any number of times, until the weights are updated."""

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
