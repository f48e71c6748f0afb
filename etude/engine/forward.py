"""Which forward pass a model is sampled with: the fastest of those that give its logits, found by trying."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

from etude.engine.attention import is_available
from etude.engine.blocks import BlockPrompts
from etude.engine.cache import PreallocatedLayer, preallocated_cache
from etude.engine.context import Context, CopiedContext, Forward, Opened
from etude.engine.fused import FusedForward
from etude.engine.modules import ModulesForward
from etude.engine.shared import Prompts
from etude.errors import UserError
from etude.kernels.decoding import kernels_for

log = logging.getLogger(__name__)

_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference of logits, in their standard deviations, up to which they count as the same (found: 1e-5 in float32, 0.01 in half)."""


@dataclass(frozen=True)
class Shared:
    """A way to sample in which a prompt is kept once for all of its rows."""

    forward: Forward
    prompts: type[BlockPrompts] | type[Prompts]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[Opened, torch.Tensor]:
        """The prompts, and the logits [P, V] of what follows them."""
        return self.prompts.prefill(self.forward, prompts)


@torch.inference_mode()
def forward_of(model: Any, working: Any) -> Shared | None:
    """How `working`, a copy of `model` or itself, is sampled; it is tried on `model`, whose precision is the better one.

    None: only transformers' own cache will do, with a copy of the prompt for each sample; a warning says why, where others could have.
    On a GPU, and where some layers do not attend to all positions, that is the way.
    """
    parameter, is_known = next(model.parameters()), next(working.parameters()).dtype in _SAME
    if not is_available(parameter.device) or parameter.dtype not in _SAME or not is_known:
        return None
    sees_all = all(type(layer) is PreallocatedLayer for layer in preallocated_cache(model.config).layers)
    if not sees_all or _turns_by_length(model.config):
        return None
    reasons = []
    passes: tuple[Any, ...] = (FusedForward, ModulesForward) if FusedForward.fits(model) else (ModulesForward,)
    for candidate, prompts in product(passes, (BlockPrompts, Prompts)):
        if prompts is BlockPrompts and kernels_for(parameter.device, parameter.dtype) is None:
            continue
        try:
            distance = _distance(Shared(candidate(model), prompts), model)
        except Exception as error:  # whatever an architecture does that this one does not know
            reasons.append(f"{candidate.__name__}: {error}")
            continue
        if distance < _SAME[parameter.dtype]:
            return Shared(candidate(working), prompts)
        reasons.append(f"{candidate.__name__}: other logits (by {distance:.2g} of their standard deviation)")
    log.warning("%s decodes with a copy of the prompt for each sample: %s", type(model).__name__, "; ".join(dict.fromkeys(reasons)))
    return None


@torch.inference_mode()
def check_copies(model: Any) -> None:
    """Raise UserError where rows that decode together, of prompts of different lengths and forked, have other logits than whole passes: a
    model that keeps part of what it read in its modules (RecurrentGemma) and not in its cache, where rows are forked, padded and left.
    """
    same = _SAME.get(next(model.parameters()).dtype)
    if same is not None and (distance := _from_whole_passes(model)) > same:
        raise UserError(
            f"a {type(model).__name__} keeps part of what it has read outside of its cache, so that rows which are sampled together mix "
            f"(other logits than a whole pass, by {distance:.2g} of their standard deviation): take a model of another architecture"
        )


def _from_whole_passes(model: Any) -> float:
    """How far the logits of copied contexts are from those of each row alone, read in one pass, in standard deviations."""
    prompts, rows, given = [[3, 2, 1], [1, 2, 3, 4, 5]], [0, 0, 1], [[1, 2, 3], [3, 1, 2]]
    opened, first = CopiedContext.prefill(model, prompts, pad=0)
    context, places_B = opened.begin(torch.arange(2), 2, samples=len(rows)), torch.tensor(rows)
    context.keep(places_B, 2)
    found = torch.stack([first[places_B], *(context.next_logits(torch.tensor(tokens)) for tokens in given)], 1).float()
    distances = []
    for own, row, tokens in zip(found, rows, zip(*given, strict=True), strict=True):
        whole = torch.tensor([[*prompts[row], *tokens]], device=own.device)
        expected = model(input_ids=whole, use_cache=False).logits[0, -len(own) :].float()
        distances.append((own - expected).abs().mean() / expected.std())
    return float(torch.stack(distances).max())  # not a number if one is none


def _distance(way: Shared, model: Any) -> float:
    """Between its logits and the model's own, over some tokens, in standard deviations."""
    prompts = [[3, 2, 1], [1, 2, 3, 4, 5]]
    copied, expected = CopiedContext.prefill(model, prompts, pad=0)
    shared, found = way.prefill(prompts)
    pairs = [(expected, found)]
    for rows in ([0, 1], [0, 0, 0, 1]):  # with few samples of each prompt, and with many
        opened: list[Opened] = [copied, shared]
        contexts: list[Context] = [each.begin(torch.arange(2), 2, samples=len(rows)) for each in opened]
        tokens = torch.tensor(rows) + 1
        for context in contexts:
            context.keep(torch.tensor(rows), 2)
        for _ in range(2):
            expected, found = (context.next_logits(tokens) for context in contexts)
            pairs.append((expected, found))
    distances = [(expected.float() - found.float()).abs().mean() / expected.float().std() for expected, found in pairs]
    return float(torch.stack(distances).max())  # not a number if one is none


def _turns_by_length(config: Any) -> bool:
    """Whether rotary embeddings change with the longest row, which other rows' keys would have to follow."""
    return any(kind in ("dynamic", "longrope") for kind in rope_types(config))


def rope_types(config: Any) -> list[str | None]:
    """Of a model's rotary embeddings."""
    found = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return [each.get("rope_type") for each in (found, *found.values()) if isinstance(each, dict)]
