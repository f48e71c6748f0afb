"""The choice of the forward pass for sampling: the fastest candidate that reproduces the model's logits in a test."""

import logging
from itertools import product
from typing import Any

import torch

from etude.engine.attention import is_available
from etude.engine.blocks import BlockPrompts
from etude.engine.cache import PreallocatedLayer, preallocated_cache
from etude.engine.copied import CopiedContext
from etude.engine.fused import FusedForward
from etude.engine.modules import ModulesForward
from etude.engine.protocols import Context, PrefilledPrompts, SharedPrefixForward
from etude.engine.shared import SharedPrompts
from etude.errors import UserError
from etude.kernels.decoding import kernels_for

log = logging.getLogger(__name__)

_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference up to which logits count as equal, in their standard deviations (measured: 1e-5 in float32, 0.01 in half)."""


@torch.inference_mode()
def find_forward(model: Any, working: Any) -> SharedPrefixForward | None:
    """Return the forward pass that samples from `working`, which is `model` or a copy. Candidates are tried on `model`, whose precision is
    higher.

    None: use transformers' own cache, with a copy of the prompt for each sample. This happens on a GPU, if layers do not attend to all
    positions, and if no candidate gives the model's logits; a warning then says why.
    """
    parameter, is_known = next(model.parameters()), next(working.parameters()).dtype in _SAME
    if not is_available(parameter.device) or parameter.dtype not in _SAME or not is_known:
        return None
    sees_all = all(type(layer) is PreallocatedLayer for layer in preallocated_cache(model.config).layers)
    if not sees_all or _rotates_by_length(model.config):
        return None
    reasons = []
    passes: tuple[Any, ...] = (FusedForward, ModulesForward) if FusedForward.fits(model) else (ModulesForward,)
    for candidate, prompts in product(passes, (BlockPrompts, SharedPrompts)):
        if prompts is BlockPrompts and kernels_for(parameter.device, parameter.dtype) is None:
            continue
        try:
            distance = _distance(SharedPrefixForward(candidate(model), prompts), model)
        except Exception as error:  # any error of an architecture that a candidate does not support
            reasons.append(f"{candidate.__name__}: {error}")
            continue
        if distance < _SAME[parameter.dtype]:
            return SharedPrefixForward(candidate(working), prompts)
        reasons.append(f"{candidate.__name__}: other logits (by {distance:.2g} of their standard deviation)")
    log.warning("%s decodes with a copy of the prompt for each sample: %s", type(model).__name__, "; ".join(dict.fromkeys(reasons)))
    return None


@torch.inference_mode()
def check_copies(model: Any) -> None:
    """Check that rows decoded together, forked and of different lengths, have the logits of whole passes.

    Raises UserError if they differ: for a model that keeps part of its state in its modules instead of its cache (RecurrentGemma).
    """
    same = _SAME.get(next(model.parameters()).dtype)
    if same is not None and (distance := _from_whole_passes(model)) > same:
        raise UserError(
            f"a {type(model).__name__} keeps part of what it has read outside of its cache, so that rows which are sampled together mix "
            f"(other logits than a whole pass, by {distance:.2g} of their standard deviation): take a model of another architecture"
        )


def _from_whole_passes(model: Any) -> float:
    """Return the distance between the logits of copied contexts and those of single-row full passes, in standard deviations."""
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
    return float(torch.stack(distances).max())  # NaN if one is NaN


def _distance(candidate: SharedPrefixForward, model: Any) -> float:
    """Return the distance between a candidate's logits and the model's own over some tokens, in standard deviations."""
    prompts = [[3, 2, 1], [1, 2, 3, 4, 5]]
    copied, expected = CopiedContext.prefill(model, prompts, pad=0)
    shared, found = candidate.prefill(prompts)
    pairs = [(expected, found)]
    for rows in ([0, 1], [0, 0, 0, 1]):  # few samples of each prompt, and many
        opened: list[PrefilledPrompts] = [copied, shared]
        contexts: list[Context] = [each.begin(torch.arange(2), 2, samples=len(rows)) for each in opened]
        tokens = torch.tensor(rows) + 1
        for context in contexts:
            context.keep(torch.tensor(rows), 2)
        for _ in range(2):
            expected, found = (context.next_logits(tokens) for context in contexts)
            pairs.append((expected, found))
    distances = [(expected.float() - found.float()).abs().mean() / expected.float().std() for expected, found in pairs]
    return float(torch.stack(distances).max())  # NaN if one is NaN


def _rotates_by_length(config: Any) -> bool:
    """Tell whether rotary embeddings change with the length of the longest row, which would change other rows' keys."""
    return any(kind in ("dynamic", "longrope") for kind in rope_types(config))


def rope_types(config: Any) -> list[str | None]:
    """Return the types of a model's rotary embeddings."""
    found = getattr(config.get_text_config(), "rope_parameters", None) or {}
    return [each.get("rope_type") for each in (found, *found.values()) if isinstance(each, dict)]
