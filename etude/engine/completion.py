"""Results of an engine: prefixes that can be extended, and finished completions."""

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
    """Conditions that end a completion before its token limit."""

    tokens: frozenset[int] = frozenset()
    """Token ids that end it; the token is kept as the last one."""
    strings: tuple[str, ...] = ()
    """Texts that end it, regardless of token boundaries; the tokens that complete a text are kept."""
    pause: re.Pattern[str] | None = None
    """A pattern that ends a step: sampling stops once the text of this extension contains it, but the prefix is not finished."""


@dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt."""

    tokens: tuple[int, ...]
    """The sampled ids, an end token included."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs (natural) of `tokens`, under the distribution that they were sampled from."""
    text: str
    """Decoded, without special tokens and without a stop string."""
    finish: Finish
    """`stop`: an end token or a stop string; `length`: the token limit, so the attempt is truncated."""
    key: int
    """The key of its random numbers."""
    policy_version: int
    """Number of weight updates before it was sampled."""
    view: str = "full"
    """Name of the view under which it was sampled; `full`: none."""


@dataclass(frozen=True)
class JointCompletion:
    """One answer to several prefixes."""

    completion: Completion
    """Its log-probs are those of the joined distribution."""
    agreement: tuple[float, ...]
    """For each token the weighted share of prefixes whose own likeliest token it was."""


@dataclass
class Prefix:
    """Tokens whose keys and values an engine holds. They can be extended any number of times, until the weights are updated."""

    tokens: tuple[int, ...]
    """All tokens: the prompt's, then own ones."""
    policy_version: int
    own_logprobs: tuple[float, ...] = ()
    """Behaviour log-probs of the own tokens, which are the last `len(own_logprobs)` of `tokens`."""
    finish: Finish | None = None
    """None while it can still be extended."""
    view: Any = field(default=None, repr=False)
    """The view under which it was opened and is extended; None: none."""
    cached: Any = field(default=None, repr=False)
    """The engine's handle on the keys and values; None when released."""

    @property
    def own_tokens(self) -> tuple[int, ...]:
        return self.tokens[len(self.tokens) - len(self.own_logprobs) :]
