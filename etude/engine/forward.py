"""Which forward pass a model is sampled with: the fastest of those that give its logits, found by trying."""

import logging
from typing import Any

import torch

from etude.engine.attention import ModulesForward, is_available
from etude.engine.cache import PreallocatedLayer, preallocated_cache
from etude.engine.context import Context, CopiedContext, Forward, Prompts
from etude.engine.fused import FusedForward

log = logging.getLogger(__name__)

_SAME = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Mean difference of logits, in their standard deviations, up to which they count as the same (found: 1e-5 in float32, 0.01 in half)."""


@torch.inference_mode()
def forward_of(model: Any, working: Any) -> Forward | None:
    """The forward pass of `working`, a copy of `model` or itself; it is tried on `model`, whose precision is the better one.

    None: only transformers' own cache will do, with a copy of the prompt for each sample; a warning says why, where others could have.
    On a GPU, and where some layers do not attend to all positions, that is the way.
    """
    parameter = next(model.parameters())
    if not is_available(parameter.device) or parameter.dtype not in _SAME:
        return None
    if not all(type(layer) is PreallocatedLayer for layer in preallocated_cache(model.config).layers):
        return None
    reasons = []
    for candidate in (FusedForward, ModulesForward) if FusedForward.fits(model) else (ModulesForward,):
        try:
            distance = _distance(candidate(model), model)
        except Exception as error:  # whatever an architecture does that this one does not know
            reasons.append(f"{candidate.__name__}: {error}")
            continue
        if distance < _SAME[parameter.dtype]:
            return candidate(working)
        reasons.append(f"{candidate.__name__}: other logits (by {distance:.2g} of their standard deviation)")
    log.warning("%s decodes with a copy of the prompt for each sample: %s", type(model).__name__, "; ".join(reasons))
    return None


def _distance(forward: Forward, model: Any) -> float:
    """Between its logits and the model's own, over some tokens, in standard deviations."""
    prompts, rows = [[3, 2, 1], [1, 2, 3, 4, 5]], torch.tensor([0, 0, 1, 1])
    copied, expected = CopiedContext.prefill(model, prompts, pad=0)
    shared, found = Prompts.prefill(forward, prompts)
    pairs = [(expected, found)]
    for samples in (2, 4):  # with a copy of each prompt, and without
        chosen = rows[:: 4 // samples]
        contexts: list[Context] = [copied.begin(chosen, 2, samples=samples), shared.begin(chosen, 2, samples=samples)]
        for tokens in (chosen + 1, chosen + 2):
            expected, found = (context.next_logits(tokens) for context in contexts)
            pairs.append((expected, found))
    return max(float((expected.float() - found.float()).abs().mean() / expected.float().std()) for expected, found in pairs)
