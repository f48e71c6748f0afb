"""The protocols of sampling: what an engine offers, and what its parts offer each other.

Who samples needs an `Engine`, and a `PrefixEngine` where samples share prefixes. The default is `etude.engine.transformers`; a server or
another runtime takes its place by offering the same methods. `Forward`, `PrefilledPrompts`, `Context` and `View` are of engines in this
process.

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
"""Takes the index of a prompt and all of its completions, as soon as they are complete."""

OnSampledToken = Callable[[int, int, int], None]
"""Takes the index of a prompt, the number of the sample and a token, as it is sampled."""

OnPrefix = Callable[[int, Prefix], None]
"""Takes the index of a prefix and what it became, as soon as it gets no more tokens."""

OnToken = Callable[[int, int], None]
"""Takes the index of a prefix (or of a group) and a token, as it is sampled."""

Join = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Logits [B, V], the group of each input, its weight, the number of groups → logits [G, V]."""


@runtime_checkable
class Engine(Protocol):
    """Samples completions of prompts from the present policy.

    Token ids go in and come out, never text: what is learned from is what was sampled. Every completion holds the log-probs of its tokens
    under the distribution that they were sampled from (after temperature, top-k, top-p and min-p), the key of its random numbers and the
    policy version.

    A completion is a function of the weights, the prompt and its key: it does not depend on what is sampled beside it, nor on the order.
    Equality is exact up to rounding, by which another batch shape can flip a token.

    Weights: `sync_weights` after every update; `offload_weights` before one, if its memory is wanted.
    """

    tokenizer: PreTrainedTokenizerBase
    end_tokens: frozenset[int]
    """Token ids that end a completion."""
    positions: int
    """The most tokens that a prompt and its completion may have together."""
    batch_tokens: int
    """Cache positions (rows x length) that are decoded together at most."""
    policy_version: int
    """Number of updates of the weights that are sampled from."""

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

        `keys`, one for each prompt and sample, fix the random numbers; prompts may have different numbers of them. Without keys they are
        hashed from `seed`, the prompt's index and the sample's number. A completion ends with a token of `end_tokens`, with one of
        `stop_strings` in its text, or after `max_new_tokens`.

        Raises UserError where the model's logits are not finite, ValueError for an empty prompt and between `offload_weights` and
        `sync_weights`.
        """

    def text_of(self, tokens: Sequence[int]) -> str:
        """Decode tokens, without special ones."""

    def offload_weights(self) -> None:
        """Free the memory of weights that `sync_weights` makes anew. Nothing can be sampled until then."""

    def sync_weights(self, policy_version: int) -> None:
        """Take over the weights of the trained model after an update. Prefixes of earlier versions can't be extended any more."""


@runtime_checkable
class PrefixEngine(Engine, Protocol):
    """An engine that keeps what it has read, so that samples, searches and joint answers share prefixes."""

    view: "View | None"
    """How the model sees contexts, unless a call names another view; None: in full."""

    @property
    def shares_prompts(self) -> bool:
        """Whether what prefixes have in common is held once for all that are extended from it."""

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
        """Sample as `Engine.generate` does; `view` replaces the engine's own."""

    def open(self, prompts: Sequence[Sequence[int]], after: Sequence[Prefix] | None = None, *, view: "View | None" = None) -> list[Prefix]:
        """Prefill prompts as one batch; returns a prefix for each, in order.

        `after`: a prefix for each prompt, finished or not, that the prompt follows. The same prefix may be named many times. What is held
        of it is not computed again, unless the engine has a view of its own, which reads all of it as a prompt. What is returned has no own
        tokens. Only whole prompts can be opened by a `view`.

        Raises ValueError for an empty prompt, for a released prefix and for one of an earlier policy version.
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

        A prefix may be named many times, with a key each. A token's random number is a function of the key and of the token's place among
        the own tokens. `keeps`: hold keys and values, so that what is returned can be extended without computing anything again.

        Raises ValueError for a finished prefix, a released one and one of an earlier policy version.
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

        One key for each group. `weights`: of each prefix, which sum to 1 in a group; all the same unless given.
        """

    def cut(self, prefix: Prefix, num_own_tokens: int) -> Prefix:
        """Return the prefix as it was after its first `num_own_tokens` own tokens, one at least, to be extended from there."""

    def completion(self, prefix: Prefix, key: int, stop_strings: Sequence[str] = ()) -> Completion:
        """Return a prefix that gets no more tokens as a completion."""

    def release(self, prefixes: Sequence[Prefix]) -> None:
        """Free what is held of these prefixes. They can't be extended any more."""


# ---------------------------------------------------------------------- the parts of an engine in this process


class Context(Protocol):
    """The rows of a decoding batch: their keys and values, and the position of the next token of each."""

    @property
    def copies(self) -> bool:
        """Whether `keep` copies keys and values, so that finished rows had better leave several at a time."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Go on with these rows, ascending, each as often as it is named, with room for so many more tokens."""

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append a token to every row; returns the logits [B, V] of the token after it."""


KeepHidden = Callable[[torch.Tensor], None]
"""Takes the hidden states that the LM head reads, [M, E]."""

KeepLayerOutput = Callable[[int, torch.Tensor], None]
"""Takes the number of a layer, 0 for the embeddings, and the hidden states after it, [M, E]."""


class Forward(Protocol):
    """A forward pass of a model that leaves attention to an `Attend`."""

    model: Any

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """The LM head: hidden states [M, E] → logits [M, V]; None where logits need more than that, and no hidden states are kept."""

    def logits(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_hidden: KeepHidden | None = None,
    ) -> torch.Tensor:
        """Return the logits [M, V] after the chosen tokens; `keep_hidden` takes what the head reads of them."""

    def sync_weights(self) -> None:
        """Make anew what is computed from the model's weights, which have changed."""

    def offload_weights(self) -> None:
        """Free what `sync_weights` makes anew."""


class PrefilledPrompts(Protocol):
    """Prompts whose keys and values were computed."""

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        """Return rows that continue these prompts, by number, ascending; `samples` completions in all, of up to `room_tokens` tokens."""


@dataclass(frozen=True)
class SharedPrefixForward:
    """A forward pass, and the way in which a prompt is held once for all of its rows."""

    forward: Forward
    prompts: Any
    """The class of `PrefilledPrompts` that does it (`etude.engine.blocks`, `etude.engine.shared`)."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[PrefilledPrompts, torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them."""
        opened, logits_PV = self.prompts.prefill(self.forward, prompts)
        return opened, logits_PV


class View(Protocol):
    """Another way in which a model sees a context, or computes what follows it."""

    @property
    def name(self) -> str:
        """The name that completions sampled by it bear."""

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, shared: SharedPrefixForward | None = None
    ) -> tuple[PrefilledPrompts, torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them. `shared`: the engine's own forward pass, if it has one."""

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Return how many cache positions a row takes for a prompt and a completion of these lengths."""

    def take_peak_bytes(self) -> int | None:
        """Return the most bytes that the rows of a batch held since the last call, and begin anew; None: they are not measured."""
