"""Contrast of layers: what the last layer finds likely and an earlier one does not.

    score(v) = log p_N(v) - strength log p_M(v)     where p_N(v) >= plausible max_w p_N(w), else -inf         (DoLa, Chuang et al. 2024,
                                                                                                            ICLR, arXiv 2309.03883)
    static     M is one layer
    dynamic    M = argmax_j JSD(p_N || p_j) over candidate layers, by row and token; the divergence is summed over the vocabulary (their
               code takes the mean, of which only the argmax means something)
    random     M is drawn from the candidates: the control

DoLa's earlier layers go through the final norm; `final_norm=False` leaves it out, as Unleash-then-Eliminate does (NeurIPS 2024, by its
code). No repetition penalty, which DoLa's code has by default. Identity: strength 0 is plain decoding, greedy or sampled.

Shapes: B rows, J candidates, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from etude.decoding.lens import Layers, Lens, layers_of, of_tokens, read
from etude.decoding.pool import Decoded, Pool
from etude.engine.completion import Tokens
from etude.engine.context import Context, CopiedContext, Forward, Opened
from etude.errors import UserError
from etude.randomness import uniforms

Choice = Literal["divergence", "random"]

NEVER = -1000.0
"""Stands for log 0 where likelihoods are summed."""


@dataclass(frozen=True)
class LayerContrast:
    """A view: plain contexts, and contrasted logits."""

    layers: Layers
    """Candidates, from 0, the embeddings; one: static."""
    strength: float = 1.0
    plausible: float = 0.1
    """Tokens less likely than this share of the likeliest one are left out; 0: none."""
    final_norm: bool = True
    choice: Choice = "divergence"

    @property
    def name(self) -> str:
        return "layer contrast"

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, forward: Forward | None = None
    ) -> tuple[Opened, torch.Tensor]:
        lens = Lens(model, layers_of(model, self.layers), final_norm=self.final_norm)
        with lens.reading():
            copied, logits_BV = CopiedContext.prefill(model, prompts, pad)
        lens.check(logits_BV)
        opened = LayerContext(self, lens, copied)
        return opened, self.contrasted(logits_BV, lens, torch.tensor([prompt[-1] for prompt in prompts]), copied.mask_BT.sum(-1))

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        return prompt_tokens + new_tokens

    def contrasted(self, logits_BV: torch.Tensor, lens: Lens, tokens_B: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """The logits with those of an earlier layer taken off; a random layer is drawn by a row's last token and its length."""
        if self.strength == 0:
            return logits_BV
        final_BV = logits_BV.float().log_softmax(-1)
        early_BV = self._early(final_BV, lens, tokens_B, length_B)
        scores_BV = final_BV - self.strength * early_BV
        if self.plausible > 0:
            least_B1 = final_BV.max(-1, keepdim=True).values + float(np.log(self.plausible))
            scores_BV = scores_BV.masked_fill(final_BV < least_B1, -torch.inf)
        return scores_BV

    def _early(self, final_BV: torch.Tensor, lens: Lens, tokens_B: torch.Tensor, length_B: torch.Tensor) -> torch.Tensor:
        """Log-probs after the layer that each row is set against."""
        if self.choice == "random":
            drawn_B = uniforms(tokens_B.cpu().numpy().astype(np.uint64), length_B.cpu().numpy())
            chosen_B = torch.from_numpy((drawn_B * len(lens.layers)).astype(np.int64)).to(final_BV.device)
        found_BV, furthest_B = final_BV, torch.full(final_BV.shape[:1], -torch.inf, device=final_BV.device)
        for number, layer in enumerate(lens.layers):
            early_BV = lens.logits(layer).float().log_softmax(-1)
            if self.choice == "random":
                distance_B = (chosen_B == number).to(final_BV) - 1
            else:
                distance_B = divergence(final_BV, early_BV) if len(lens.layers) > 1 else torch.zeros_like(furthest_B)
            is_further_B = distance_B > furthest_B
            found_BV = torch.where(is_further_B[:, None], early_BV, found_BV)
            furthest_B = torch.where(is_further_B, distance_B, furthest_B)
        return found_BV


@dataclass
class LayerContext:
    """A context with contrasted logits."""

    how: LayerContrast
    lens: Lens
    inner: Any
    copies: bool = True

    def __len__(self) -> int:
        return len(self.inner)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return LayerContext(self.how, self.lens, self.inner.begin(rows_B, room_tokens, samples=samples))

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        self.inner.keep(rows_B, room_tokens)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        with self.lens.reading():
            logits_BV = self.inner.next_logits(tokens_B)
        return self.how.contrasted(logits_BV, self.lens, tokens_B, self.inner.mask_BT.sum(-1))


def divergence(first_BV: torch.Tensor, second_BV: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence [B] of distributions by their log-probs, in nats, from 0 to log 2."""
    mean_BV = torch.logaddexp(first_BV, second_BV) - float(np.log(2))
    parts = [(log_BV.exp() * (log_BV - mean_BV)).sum(-1) for log_BV in (first_BV, second_BV)]
    return (parts[0] + parts[1]) / 2


@torch.inference_mode()
def contrasted_logprobs(model: Any, how: LayerContrast, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, ...]]:
    """The log-prob of every token of completions behind their prompts, under the contrasted distribution, normalised; with strength 0 the
    model's own. A token that the contrast would never say has `NEVER`, a sum with such tokens ranks by how many they are (`plausible` 0
    rules none out).
    """
    layers, found = layers_of(model, how.layers), []
    for prompt, completion in pairs:
        first = len(prompt) - 1
        lens = Lens(model, layers, final_norm=how.final_norm, at=partial(_from, first))
        with lens.reading():
            logits_NV = read(model, prompt, completion)
        lens.check(logits_NV)
        before_N = torch.tensor([prompt[-1], *completion[:-1]])
        scores_NV = how.contrasted(logits_NV, lens, before_N, torch.arange(len(completion)) + first + 1)
        found.append(tuple(of_tokens(scores_NV, completion).clamp(min=NEVER).tolist()))
    return found


def _from(first: int, states_BTE: torch.Tensor) -> torch.Tensor:
    return states_BTE[0, first:]


def layer_contrast_static(pool: Pool, layers: Sequence[int], strength: float, plausible: float, final_norm: bool) -> list[Decoded]:
    """Against one layer: the middle one, unless it is named."""
    if len(layers) > 1:
        raise UserError(f"decoding.layers names {len(layers)}, but layer_contrast_static takes one: name one, or none for the middle")
    return _viewed(pool, LayerContrast(tuple(layers) or "middle", strength, plausible, final_norm))


def layer_contrast_dynamic(
    pool: Pool, layers: Sequence[int], layer_set: Literal["low", "high"], strength: float, plausible: float, final_norm: bool
) -> list[Decoded]:
    """Against the layer that is furthest from the last one, of those that are named, or of a set."""
    return _viewed(pool, LayerContrast(tuple(layers) or layer_set, strength, plausible, final_norm))


def random_layer(
    pool: Pool, layers: Sequence[int], layer_set: Literal["low", "high"], strength: float, plausible: float, final_norm: bool
) -> list[Decoded]:
    """Control: against a random one of these layers at every token."""
    return _viewed(pool, LayerContrast(tuple(layers) or layer_set, strength, plausible, final_norm, "random"))


def _viewed(pool: Pool, view: LayerContrast) -> list[Decoded]:
    return [Decoded.of(completion) for completion in pool.viewed(view, is_heard=True)]
