"""Layer contrast (DoLa): prefers tokens that are likely after the last layer and unlikely after an earlier one.

    score(v) = log p_N(v) - strength log p_M(v)     where p_N(v) >= plausible max_w p_N(w), else -inf         (DoLa, Chuang et al. 2024,
                                                                                                            ICLR, arXiv 2309.03883)
    static     M is one layer
    dynamic    M = argmax_j JSD(p_N || p_j) over candidate layers, by row and token; the divergence is summed over the vocabulary (their
               code takes the mean; the argmax is the same)
    random     M is sampled from the candidates: the control

DoLa's earlier layers pass the final norm; `final_norm=False` skips it, like Unleash-then-Eliminate (NeurIPS 2024, by its code). There is no
repetition penalty, which DoLa's code has by default. Identity: strength 0 is plain decoding, greedy or sampled.

Shapes: B rows, J candidates, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from etude.decoding.logit_lens import LayerChoice, LogitLens, LogitLensForward, batched_completion_logits, layer_numbers, token_logprobs
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.engine.completion import Tokens
from etude.engine.copied import CopiedContext
from etude.engine.fused import FusedForward
from etude.engine.protocols import Context, PrefilledPrompts, SharedPrefixForward
from etude.errors import UserError
from etude.randomness import uniforms

Choice = Literal["divergence", "random"]

NEVER = -1000.0
"""Replaces log 0 in sums of log-probs."""


@dataclass(frozen=True)
class LayerContrast:
    """A view of the model: plain contexts with contrasted logits."""

    layers: LayerChoice
    """Candidate layers, from 0, the embeddings; one: static."""
    strength: float = 1.0
    plausible: float = 0.1
    """Tokens less likely than this share of the likeliest one are excluded; 0: none."""
    final_norm: bool = True
    choice: Choice = "divergence"

    @property
    def name(self) -> str:
        return "layer contrast"

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, shared: SharedPrefixForward | None = None
    ) -> tuple[PrefilledPrompts, torch.Tensor]:
        layers = layer_numbers(model, self.layers)
        opened: PrefilledPrompts
        if shared and isinstance(shared.forward, FusedForward):
            lens = LogitLens(shared.forward.model, layers, final_norm=self.final_norm, forward=shared.forward)
            with lens.reading():
                opened, logits_BV = replace(shared, forward=LogitLensForward(shared.forward, lens)).prefill(prompts)
        else:
            lens = LogitLens(model, layers, final_norm=self.final_norm)
            with lens.reading():
                opened, logits_BV = CopiedContext.prefill(model, prompts, pad)
        lens.check(logits_BV)
        ends_B, length_B = torch.tensor([prompt[-1] for prompt in prompts]), torch.tensor([len(prompt) for prompt in prompts])
        return LayerPrompts(self, lens, opened), self.contrasted(logits_BV, lens, ends_B, length_B)

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        return prompt_tokens + new_tokens

    def take_peak_bytes(self) -> None:
        """Return None, since memory is not measured."""

    def contrasted(self, logits_BV: torch.Tensor, lens: LogitLens, tokens_B: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """Subtract an earlier layer's log-probs from the logits; random layers are seeded by a row's last token and length."""
        if self.strength == 0:
            return logits_BV
        final_BV = logits_BV.float().log_softmax(-1)
        early_BV = self._early(final_BV, lens, tokens_B, length_B)
        scores_BV = final_BV - self.strength * early_BV
        if self.plausible > 0:
            least_B1 = final_BV.max(-1, keepdim=True).values + float(np.log(self.plausible))
            scores_BV = scores_BV.masked_fill(final_BV < least_B1, -torch.inf)
        return scores_BV

    def _early(self, final_BV: torch.Tensor, lens: LogitLens, tokens_B: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """Return the log-probs after each row's contrast layer."""
        rows_B = torch.arange(len(final_BV), device=final_BV.device)
        if self.choice == "random":
            drawn_B = uniforms(tokens_B.cpu().numpy().astype(np.uint64), length_B.cpu().numpy())
            chosen_B = torch.from_numpy((drawn_B * len(lens.layers)).astype(np.int64)).to(final_BV.device)
            states_BE = torch.stack([lens.states(layer) for layer in lens.layers])[chosen_B, rows_B]
            return lens.said(states_BE).float().log_softmax(-1)
        found_BV, furthest_B = final_BV, torch.full(final_BV.shape[:1], -torch.inf, device=final_BV.device)
        for early_JBV in lens.logprobs():
            if len(lens.layers) == 1:
                return early_JBV[0]
            distance_B, place_B = divergence(final_BV, early_JBV).max(0)
            is_further_B = distance_B > furthest_B
            found_BV = torch.where(is_further_B[:, None], early_JBV[place_B, rows_B], found_BV)
            furthest_B = torch.where(is_further_B, distance_B, furthest_B)
        return found_BV


@dataclass(frozen=True)
class LayerPrompts:
    """Prefilled prompts with contrasted logits."""

    how: LayerContrast
    lens: LogitLens
    inner: PrefilledPrompts

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return LayerContext(self.how, self.lens, self.inner.begin(rows_B, room_tokens, samples=samples))


@dataclass
class LayerContext:
    """A context with contrasted logits."""

    how: LayerContrast
    lens: LogitLens
    inner: Any

    @property
    def copies(self) -> bool:
        return bool(self.inner.copies)

    def __len__(self) -> int:
        return len(self.inner)

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        self.inner.keep(rows_B, room_tokens)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        with self.lens.reading():
            logits_BV = self.inner.next_logits(tokens_B)
        return self.how.contrasted(logits_BV, self.lens, tokens_B, self.inner.length_B)


def divergence(first_BV: torch.Tensor, second_JBV: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence [J, B] of distributions given as log-probs, in nats, from 0 to log 2."""
    one_BV, other_JBV = first_BV.exp(), second_JBV.exp()
    mean_JBV = ((one_BV + other_JBV) / 2).clamp(min=torch.finfo(torch.float32).tiny).log()
    return (one_BV * (first_BV - mean_JBV) + other_JBV * (second_JBV - mean_JBV)).sum(-1) / 2


@torch.inference_mode()
def contrasted_logprobs(model: Any, how: LayerContrast, prompt: Tokens, completions: Sequence[Tokens]) -> list[tuple[float, ...]]:
    """Return the log-prob of every token of a prompt's completions under the contrasted distribution, normalised.

    With strength 0 it is the model's own. Excluded tokens have `NEVER`, so that sums rank by their number (`plausible` 0 excludes none).
    """
    found: dict[int, tuple[float, ...]] = {}
    for numbers, logits_NV, lens in batched_completion_logits(model, layer_numbers(model, how.layers), how.final_norm, prompt, completions):
        some = [completions[number] for number in numbers]
        before_N = torch.tensor([token for own in some for token in (prompt[-1], *own[:-1])])
        length_N = torch.cat([torch.arange(len(own)) for own in some]) + len(prompt)
        scores_NV = how.contrasted(logits_NV, lens, before_N, length_N)
        logprobs = token_logprobs(scores_NV, [token for own in some for token in own]).clamp(min=NEVER).tolist()
        for number, own in zip(numbers, some, strict=True):
            found[number], logprobs = tuple(logprobs[: len(own)]), logprobs[len(own) :]
    return [found[number] for number in range(len(completions))]


def layer_contrast_static(
    pool: SamplePool, layers: Sequence[int], strength: float, plausible: float, final_norm: bool
) -> list[DecodedAnswer]:
    """Decode against one layer, by default the middle one.

    Raises UserError for more than one layer.
    """
    if len(layers) > 1:
        raise UserError(f"decoding.layers names {len(layers)}, but layer_contrast_static takes one: name one, or none for the middle")
    return _viewed(pool, LayerContrast(tuple(layers) or "middle", strength, plausible, final_norm))


def layer_contrast_dynamic(
    pool: SamplePool, layers: Sequence[int], layer_set: Literal["low", "high"], strength: float, plausible: float, final_norm: bool
) -> list[DecodedAnswer]:
    """Decode against the layer furthest from the last one, among `layers` or a layer set."""
    return _viewed(pool, LayerContrast(tuple(layers) or layer_set, strength, plausible, final_norm))


def random_layer(
    pool: SamplePool, layers: Sequence[int], layer_set: Literal["low", "high"], strength: float, plausible: float, final_norm: bool
) -> list[DecodedAnswer]:
    """Decode against a random layer of these at every token (control)."""
    return _viewed(pool, LayerContrast(tuple(layers) or layer_set, strength, plausible, final_norm, "random"))


def _viewed(pool: SamplePool, view: LayerContrast) -> list[DecodedAnswer]:
    return [DecodedAnswer.of(completion) for completion in pool.viewed(view, is_heard=True)]
