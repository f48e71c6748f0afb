"""The protocols of engines and of their parts.

Sampling needs an `Engine`, or a `PrefixEngine` where samples share prefixes. The default is `etude.engine.transformers`; a server or
another runtime can replace it by implementing the same methods. `Forward`, `PrefilledPrompts`, `Context` and `View` are parts of engines
in this process.

Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerBase

from etude.engine.attention import Attend
from etude.engine.completion import Completion, JointCompletion, Prefix, Stop
from etude.engine.settings import Sampling

OnCompletions = Callable[[int, list[Completion]], None]
"""Takes the index of a prompt and all of its completions, as soon as all have ended."""

OnSampledToken = Callable[[int, int, int], None]
"""Takes the index of a prompt, the number of the sample and a token, as it is sampled."""

OnPrefix = Callable[[int, Prefix], None]
"""Takes the index of a prefix and the extended prefix, as soon as it has ended."""

OnToken = Callable[[int, int], None]
"""Takes the index of a prefix (or of a group) and a token, as it is sampled."""

Join = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Logits [B, V], the group of each input, its weight, the number of groups → logits [G, V]."""


@runtime_checkable
class Engine(Protocol):
    """Samples completions of prompts from the current policy.

    Prompts and completions are token ids, never text, so that training uses exactly the sampled tokens. Every completion holds the
    log-probs of its tokens under the distribution that they were sampled from (after temperature, top-k, top-p and min-p), the key of its
    random numbers and the policy version.

    A completion is a function of the weights, the prompt and its key: it depends neither on the rest of its batch nor on the order.
    Equality is exact up to rounding, by which another batch shape can flip a token.

    Call `sync_weights` after every update, and `offload_weights` before one to free memory.
    """

    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[int]
    """Token ids that end a completion."""
    positions: int
    """Maximum length of a prompt and its completion together, in tokens."""
    batch_tokens: int
    """Maximum of cache positions (rows x length) decoded together."""
    policy_version: int
    """Number of updates of the engine's weights."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[Sequence[int]] | None = None,
        stop_strings: Sequence[str] = (),
        on_complete: OnCompletions | None = None,
        on_token: OnSampledToken | None = None,
    ) -> list[list[Completion]]:
        """Sample `num_samples` completions of every prompt; returns them in the order of the prompts.

        `keys`, one for each prompt and sample, fix the random numbers; prompts may have different numbers of samples. By default, keys are
        hashed from `seed`, the prompt's index and the sample's number. A completion ends with a token of `end_tokens`, with one of
        `stop_strings` in its text, or after `max_new_tokens`.

        Raises UserError if the model's logits are not finite, ValueError for an empty prompt and between `offload_weights` and
        `sync_weights`.
        """

    def text_of(self, tokens: Sequence[int]) -> str:
        """Decode tokens, without special ones."""

    def offload_weights(self) -> None:
        """Free the memory of weights that `sync_weights` recreates. Sampling is not possible until then."""

    def sync_weights(self, policy_version: int) -> None:
        """Load the weights of the trained model after an update. Prefixes of earlier versions can no longer be extended."""


@runtime_checkable
class PrefixEngine(Engine, Protocol):
    """An engine that keeps a KV cache of prefixes, which samples, searches and joint answers share."""

    view: "View | None"
    """The default view of all calls; None: the full cache."""

    @property
    def shares_prompts(self) -> bool:
        """Whether the cache holds a common prefix once for all of its extensions."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int = 1,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        keys: Sequence[Sequence[int]] | None = None,
        stop_strings: Sequence[str] = (),
        on_complete: OnCompletions | None = None,
        on_token: OnSampledToken | None = None,
        view: "View | None" = None,
    ) -> list[list[Completion]]:
        """Sample completions like `Engine.generate`; `view` replaces the engine's own."""

    def open(self, prompts: Sequence[Sequence[int]], after: Sequence[Prefix] | None = None, *, view: "View | None" = None) -> list[Prefix]:
        """Prefill prompts as one batch; returns a prefix for each, in order.

        `after`: for each prompt the prefix that it follows, finished or not; prefixes may repeat. Cached tokens are not computed again,
        unless the engine has a view of its own, which reads all of the prefix as a prompt. The results have no own tokens. A `view` can
        only open whole prompts.

        Raises ValueError for an empty prompt, a released prefix, or a prefix of an earlier policy version.
        """

    def extend(
        self,
        prefixes: Sequence[Prefix],
        n: int | Sequence[int],
        *,
        until: Stop,
        sampling: Sampling,
        keys: Sequence[int],
        on_complete: OnPrefix | None = None,
        keeps: bool = True,
        on_token: OnToken | None = None,
    ) -> list[Prefix]:
        """Sample up to `n` more own tokens (one number for all, or one each) for each prefix; returns the longer prefixes.

        Prefixes may repeat, each time with a key of its own. A token's random number is a function of the key and of the token's position
        among the own tokens. `keeps`: keep keys and values, so that extending the results computes nothing again.

        Raises ValueError for a finished prefix, a released prefix, or a prefix of an earlier policy version.
        """

    def extend_joint(
        self,
        groups: Sequence[Sequence[Prefix]],
        n: int,
        *,
        sampling: Sampling,
        keys: Sequence[int],
        join: Join = ...,
        weights: Sequence[Sequence[float]] | None = None,
        stop_strings: Sequence[str] = (),
        on_token: OnToken | None = None,
    ) -> list[JointCompletion]:
        """Sample one answer of up to `n` tokens to each group of prefixes, from their joined distributions (`etude.engine.joint`).

        One key for each group. `weights`: of each prefix, summing to 1 within a group; equal by default.
        """

    def cut(self, prefix: Prefix, num_own_tokens: int) -> Prefix:
        """Return the prefix after its first `num_own_tokens` own tokens (at least 1), to be extended from there."""

    def completion(self, prefix: Prefix, key: int, stop_strings: Sequence[str] = ()) -> Completion:
        """Convert an ended prefix into a completion."""

    def release(self, prefixes: Sequence[Prefix]) -> None:
        """Free the cache of these prefixes. They can no longer be extended."""


# ---------------------------------------------------------------------- the parts of an engine in this process


class Context(Protocol):
    """The rows of a decoding batch: their keys and values, and the position of the next token of each."""

    @property
    def copies(self) -> bool:
        """Whether `keep` copies keys and values, so that it is cheaper to remove several finished rows at a time."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Keep only these rows, ascending; a repeated row is duplicated. Reserve room for `room_tokens` more tokens."""

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append a token to every row; returns the logits [B, V] of the token after it."""


KeepHidden = Callable[[torch.Tensor], None]
"""Takes the hidden states that the LM head reads, [M, E]."""

KeepLayerOutput = Callable[[int, torch.Tensor], None]
"""Takes the number of a layer, 0 for the embeddings, and the hidden states after it, [M, E]."""


class Forward(Protocol):
    """A forward pass of a model that delegates attention to an `Attend`."""

    model: Any

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The LM head: hidden states [M, E] → logits [M, V]. None: logits need more than the head, and no hidden states are kept."""

    def logits(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_hidden: KeepHidden | None = None,
    ) -> torch.Tensor:
        """Return the logits [M, V] after the chosen tokens; `keep_hidden` takes their last hidden states."""

    def sync_weights(self) -> None:
        """Recompute everything derived from the model's weights after they have changed."""

    def offload_weights(self) -> None:
        """Free everything that `sync_weights` recreates."""


class PrefilledPrompts(Protocol):
    """Prompts whose keys and values were computed."""

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        """Create rows that continue these prompts (numbers, ascending), for `samples` completions in all, of up to `room_tokens` tokens."""


@dataclass(frozen=True)
class SharedPrefixForward:
    """A forward pass, and the layout that holds a prompt once for all of its rows."""

    forward: Forward
    prompts: Any
    """The class of `PrefilledPrompts` (`etude.engine.blocks`, `etude.engine.shared`)."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[PrefilledPrompts, torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them."""
        opened, logits_PV = self.prompts.prefill(self.forward, prompts)
        return opened, logits_PV


class View(Protocol):
    """An alternative way of prefilling and decoding a context, such as a KV cache policy."""

    @property
    def name(self) -> str:
        """The `view` of completions sampled under it."""

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, shared: SharedPrefixForward | None = None
    ) -> tuple[PrefilledPrompts, torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them. `shared`: the engine's own forward pass, if it has one."""

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return how many cache positions a row needs for a prompt and a completion of these lengths."""

    def take_peak_bytes(self) -> int | None:
        """Return the peak bytes held by a batch's rows since the last call, and reset it; None: not measured."""
