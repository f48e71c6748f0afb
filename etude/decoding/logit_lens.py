"""Logit lens: next-token predictions after each layer, by applying the head to its states, with or without norm (nostalgebraist 2020).

Layers are counted like transformers' hidden states: 0 is the embeddings, l the output of the l-th layer, the last one the model itself.
Shapes: B rows, E hidden width, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from etude.engine.attention import Attend
from etude.engine.cache import PreallocatedLayer, cache_argument, preallocated_cache, select_rows
from etude.engine.completion import Tokens
from etude.engine.fused import FusedForward
from etude.engine.protocols import KeepHidden
from etude.engine.sampling import GREEDY, sample
from etude.errors import UserError
from etude.models.heads import head_on_positions

_TOGETHER = 512
"""Tokens of completions, and rows of the head, computed at once: logits of a large vocabulary are large."""

_SAME = 0.05
"""Mean difference of logits, in standard deviations, up to which norm and head count as reproducing the model's own."""


def last_of_rows(states_BTE: torch.Tensor) -> torch.Tensor:
    """Return the states [B, E] at the last position of every row."""
    return states_BTE[:, -1].clone()  # a view would keep the states of all positions in memory


class LogitLens:
    """Reads layers at the last position of every row (or at others) while a model computes.

    With the engine's own pass (`forward`) they are read without hooks, by `LogitLensForward`.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[int],
        *,
        final_norm: bool = True,
        at: Callable[[torch.Tensor], torch.Tensor] = last_of_rows,
        forward: FusedForward | None = None,
    ) -> None:
        """Prepare to read these layers; `final_norm` applies the model's last norm to earlier layers, `at` maps states [B, T, E] to those
        kept.

        Raises UserError for a layer that is not before the last one.
        """
        self.layers, self._final_norm, self._at, self._forward = tuple(layers), final_norm, at, forward
        self._embeddings: Any = model.get_output_embeddings()
        decoder, self._head = model.get_decoder(), forward.head if forward else self._embeddings
        self._blocks = _blocks(model, decoder)
        norms = [part for part in decoder.children() if "norm" in type(part).__name__.lower()]
        self._norm = norms[-1] if norms else torch.nn.Identity()
        last = len(self._blocks) - 1
        if not layers:
            raise UserError(f"no layer to set against the last one: name some from 0 (embeddings) to {last}")
        for layer in layers:
            if not 0 <= layer <= last:
                raise UserError(f"layer {layer} can't be set against the last one of this model: name one from 0 (embeddings) to {last}")
        self._states: dict[int, list[torch.Tensor]] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Record the layers while the model computes inside the context; earlier records are dropped."""
        self._states = {}
        if self._forward:
            yield
            return
        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.callback(self._blocks[layer].register_forward_pre_hook(self._reader(layer), with_kwargs=True).remove)
            hooks.callback(self._blocks[-1].register_forward_hook(self._read_last).remove)
            yield

    def keep(self, layer: int, states_BE: torch.Tensor) -> None:
        """Record the output of one of these layers, or of the last one; a computation in parts records parts."""
        if layer in self.layers or layer == len(self._blocks):
            self._states.setdefault(layer, []).append(states_BE)

    def states(self, layer: int) -> torch.Tensor:
        """Return the states [B, E] after a layer in the last computation."""
        parts = self._states[layer]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def said(self, states_NE: torch.Tensor) -> torch.Tensor:
        """Compute the logits [N, V] from states of any layer."""
        found: torch.Tensor = self._head(self._read(states_NE))
        return found

    def _read(self, states_NE: torch.Tensor) -> torch.Tensor:
        """Return the input of the head."""
        found: torch.Tensor = self._norm(states_NE) if self._final_norm else states_NE
        return found

    def logits(self, layer: int) -> torch.Tensor:
        """Return the logits [B, V] after a layer."""
        return self.said(self.states(layer))

    def logprobs(self) -> Iterator[torch.Tensor]:
        """Yield log-probs [J, B, V] after the layers that are read, in order, in chunks of layers for one head product each."""
        for states_JBE in self._some():
            yield self.said(states_JBE.flatten(0, 1)).float().log_softmax(-1).unflatten(0, states_JBE.shape[:2])

    def logprobs_of(self, tokens_B: torch.Tensor, head: torch.nn.Linear) -> torch.Tensor:
        """Return the log-prob [J, B] of one token in each row, computed with a copy of the head that may have a lower precision.

        The copy is used for the sum over the vocabulary, in which rounding errors are small. The logits of the token and of the likeliest
        one, which may dominate the sum, keep the states' precision.
        """
        found = []
        for states_JBE in self._some():
            read_JBE = self._read(states_JBE)
            logits_NV = head(read_JBE.flatten(0, 1).to(head.weight.dtype))
            best_N, logprob_N = sample(logits_NV, GREEDY, logits_NV.new_empty(0))
            rounded_N = logits_NV.gather(1, best_N[:, None])[:, 0].float()
            off_N = self._logit(read_JBE.flatten(0, 1), best_N) - rounded_N
            summed_N = rounded_N - logprob_N + (logprob_N.exp() * off_N.expm1()).log1p()
            found.append(self._logit(read_JBE, tokens_B) - summed_N.unflatten(0, read_JBE.shape[:2]))
        return torch.cat(found)

    def _logit(self, read_NE: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
        """Compute the logit of one token for each input of the head."""
        found_N: torch.Tensor = (read_NE * self._embeddings.weight[tokens_N]).sum(-1)
        return found_N if self._embeddings.bias is None else found_N + self._embeddings.bias[tokens_N]

    def _some(self) -> Iterator[torch.Tensor]:
        """Yield states [J, B, E] of several layers at a time."""
        at_once = max(1, _TOGETHER // len(self.states(self.layers[0])))
        for first in range(0, len(self.layers), at_once):
            yield torch.stack([self.states(layer) for layer in self.layers[first : first + at_once]])

    def check(self, logits_BV: torch.Tensor) -> None:
        """Check, given the model's logits, that only norm and head follow the last layer.

        Raises UserError otherwise.
        """
        found = self._head(self._norm(self.states(len(self._blocks)))).detach().float()
        distance = (found - logits_BV).abs().mean() / logits_BV.float().std()
        if not float(distance) < _SAME:
            raise UserError(
                "this model does more between its last layer and its logits than a norm and a head, so what its layers would say can't be "
                "read: take a method without layers"
            )

    def _reader(self, layer: int) -> Any:
        def completion_logits(_: Any, given: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
            self.keep(layer, self._at(given[0] if given else named["hidden_states"]))

        return completion_logits

    def _read_last(self, _: Any, given: Any, found: Any) -> None:
        self.keep(len(self._blocks), self._at(found[0] if isinstance(found, tuple) else found))


class LogitLensForward:
    """The engine's own forward pass with a lens that reads its layers at the tokens whose logits are computed."""

    def __init__(self, inner: FusedForward, lens: LogitLens) -> None:
        self.inner, self.lens, self.model = inner, lens, inner.model

    def logits(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_hidden: KeepHidden | None = None,
    ) -> torch.Tensor:
        """Compute logits like any `Forward`."""
        return self.inner.logits(tokens_N, positions_N, attend, chosen_M, keep_hidden, self.lens.keep)

    def head(self, read_ME: torch.Tensor) -> torch.Tensor:
        """Apply the pass's head."""
        return self.inner.head(read_ME)

    def sync_weights(self) -> None:
        """Sync the pass's weights."""
        self.inner.sync_weights()

    def offload_weights(self) -> None:
        """Release the pass's weights."""
        self.inner.offload_weights()


def completion_logits(model: Any, prompt: Tokens, completion: Tokens) -> torch.Tensor:
    """Return the logits [N, V] that predict each token of a completion after its prompt."""
    inputs = torch.tensor([[*prompt, *completion[:-1]]], device=next(model.parameters()).device)
    found: torch.Tensor = model(input_ids=inputs, use_cache=False).logits[0, -len(completion) :].float()
    return found


def batched_completion_logits(
    model: Any, layers: Sequence[int], final_norm: bool, prompt: Tokens, completions: Sequence[Tokens]
) -> Iterator[tuple[list[int], torch.Tensor, LogitLens]]:
    """Yield completions of a prompt in batches: their numbers, the concatenated logits [N, V] that predict their tokens, and a lens.

    If all layers attend to all positions, the prompt is computed once.
    """
    device = next(model.parameters()).device
    cache, before = preallocated_cache(model.config), list(prompt[:-1])
    is_kept = bool(before) and all(type(layer) is PreallocatedLayer for layer in cache.layers)
    if is_kept:
        with head_on_positions(model, torch.zeros(1, dtype=torch.long, device=device)):
            model(input_ids=torch.tensor([before], device=device), use_cache=True, **{cache_argument(model): cache})
        before = []
    order, first = sorted(range(len(completions)), key=lambda number: len(completions[number])), 0
    while first < len(order):
        end = first + 1
        while end < len(order) and (end + 1 - first) * len(completions[order[end]]) <= _TOGETHER:
            end += 1
        chosen, first = order[first:end], end
        rows = [torch.tensor([*before, prompt[-1], *completions[number][:-1]], device=device) for number in chosen]
        tokens_BT = pad_sequence(rows, batch_first=True)  # padded on the right, to which no token attends
        starts = [row * tokens_BT.shape[1] + len(before) for row in range(len(chosen))]
        places = [
            torch.arange(start, start + len(completions[number]), device=device) for start, number in zip(starts, chosen, strict=True)
        ]
        places_N = torch.cat(places)
        lens = LogitLens(model, layers, final_norm=final_norm, at=partial(_at, places_N))
        rows_B = torch.zeros(len(chosen), dtype=torch.long)
        kept = {cache_argument(model): select_rows(cache, rows_B, tokens_BT.shape[1])} if is_kept else {}
        with lens.reading(), head_on_positions(model, places_N):
            logits_NV = model(input_ids=tokens_BT, use_cache=is_kept, **kept).logits.float()
        lens.check(logits_NV)
        yield chosen, logits_NV, lens


def _at(places_N: torch.Tensor, states_BTE: torch.Tensor) -> torch.Tensor:
    return states_BTE.flatten(0, 1)[places_N]


def token_logprobs(logits_NV: torch.Tensor, completion: Sequence[int]) -> torch.Tensor:
    """Return the log-probs [N] of a completion's tokens."""
    return logits_NV.float().log_softmax(-1).gather(1, torch.tensor(completion, device=logits_NV.device)[:, None])[:, 0]


@torch.inference_mode()
def logprobs_by_layer(model: Any, prompt: Tokens, completions: Sequence[Tokens], head: torch.nn.Linear | None = None) -> list[list[float]]:
    """Return each completion's log-prob after each layer, from the embeddings to the model's own output, which is last.

    `head` is a faster copy (`head_copy`) for all layers but the last.
    """
    layers = range(len(_blocks(model, model.get_decoder())))
    found: list[list[float]] = [[]] * len(completions)
    for numbers, logits_NV, lens in batched_completion_logits(model, layers, True, prompt, completions):
        tokens_N = torch.tensor([token for number in numbers for token in completions[number]], device=logits_NV.device)
        if head:
            parts = [lens.logprobs_of(tokens_N, head)]
        else:
            parts = [logprobs_JNV.gather(-1, tokens_N.expand(len(logprobs_JNV), -1)[..., None])[..., 0] for logprobs_JNV in lens.logprobs()]
        each_LN = torch.cat([*parts, token_logprobs(logits_NV, tokens_N.tolist())[None]])
        of_each = each_LN.split([len(completions[number]) for number in numbers], dim=1)
        for number, own_LN in zip(numbers, of_each, strict=True):
            found[number] = own_LN.sum(-1).tolist()
    return found


def head_copy(model: Any, dtype: torch.dtype) -> torch.nn.Linear | None:
    """Copy the model's head in another precision; returns None if it has that precision, or if it is not a plain linear layer."""
    head = model.get_output_embeddings()
    return None if type(head) is not torch.nn.Linear or head.weight.dtype == dtype else copy.deepcopy(head).to(dtype)


@dataclass(frozen=True)
class LayerPart:
    """One of `of` sets of neighbouring layers of about equal size: of every other layer, if there are enough."""

    number: int
    """From 0."""
    of: int


LayerSet = Literal["low", "high", "middle"]
LayerChoice = tuple[int, ...] | LayerSet | LayerPart
"""Layers by number, or by a rule."""


def layer_numbers(model: Any, layers: LayerChoice) -> tuple[int, ...]:
    """Resolve a choice of layers: every other layer of the `low` or `high` half, the `middle` one, or a part of all.

    With a tied head the embeddings are excluded, since they predict the last token itself. Raises UserError for more parts than layers.
    """
    number, is_tied = len(_blocks(model, model.get_decoder())), model.config.get_text_config().tie_word_embeddings
    match layers:
        case "low":
            return tuple(range(2 if is_tied else 0, number // 2, 2))
        case "high":
            return tuple(range(number // 2, number, 2))
        case "middle":
            return (number // 2,)
        case LayerPart(place, of):
            every, thin = range(1 if is_tied else 0, number), range(2 if is_tied else 0, number, 2)
            if of > len(every):
                raise UserError(f"decoding.k is {of}, but this model has {len(every)} layers to make sets of: set k to no more")
            own = thin if of <= len(thin) else every
            return tuple(own[len(own) * place // of : len(own) * (place + 1) // of])
        case _:
            return layers


def _blocks(model: Any, decoder: Any) -> Sequence[Any]:
    number = model.config.get_text_config().num_hidden_layers
    lists = [part for part in decoder.children() if isinstance(part, torch.nn.ModuleList) and len(part) == number]
    if not lists:
        raise UserError(f"the layers of a {type(model).__name__} can't be found, so what they would say can't be read")
    return list(lists[0])
