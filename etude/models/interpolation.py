"""Interpolates the weights of two models: (1 - a) · start + a · end, with one a for all layers or one for each group of layers.

Models between a base model and its practised version keep more of the old knowledge and have less of the new skill (Lin et al. 2023, arXiv
2309.06256, section 4: averaging has a better trade-off of both than replay, penalties and LoRA there; one a for each group of layers is
their section 5, which learns the factors, while here they are given or chosen). Nothing is trained. Both models must have the same
architecture.

    group        weights
    embeddings   token embeddings, and a head tied to them
    early        the first third of the layers; `middle` and `late` are the others
    head         the last norm and an untied head

Identity: a = 0 gives start, a = 1 gives end, byte for byte.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError, check_known
from etude.models.load import load_model
from etude.models.save import copy_prompt_settings, save_model

GROUPS = ("embeddings", "early", "middle", "late", "head")
_LAYER = re.compile(r"\.(\d+)\.")


@torch.no_grad()
def interpolate_weights(
    start: Mapping[str, torch.Tensor], end: Mapping[str, torch.Tensor], factor_of: Callable[[str], float]
) -> dict[str, torch.Tensor]:
    """Compute (1 - a) · start + a · end for every weight, with a by the weight's name.

    Integer weights are the end's, or the start's at a = 0. Raises UserError for weights of two architectures.
    """
    if start.keys() != end.keys() or any(start[name].shape != end[name].shape for name in start):
        odd = sorted(start.keys() ^ end.keys()) or [name for name in start if start[name].shape != end[name].shape]
        raise UserError(f"the two models have other weights ({odd[0]} and {len(odd) - 1} more): interpolate models of one architecture")
    return {name: _between(start[name], end[name], factor_of(name)) for name in start}


def _between(start: torch.Tensor, end: torch.Tensor, factor: float) -> torch.Tensor:
    if factor in (0.0, 1.0) or not start.is_floating_point():
        return end if factor else start
    return start.lerp(end, factor)


def group_of(name: str, num_layers: int, is_tied: bool) -> str:
    """Return the group of a weight, by its name."""
    layer = _LAYER.search(name)
    if layer is not None and num_layers:
        return ("early", "middle", "late")[min(2, 3 * int(layer[1]) // num_layers)]
    is_embedding = "embed" in name or "wte" in name or "wpe" in name
    return "embeddings" if is_embedding or (is_tied and "lm_head" in name) else "head"


def interpolate(start: str, end: str, out: Path, *, factor: float | None = None, groups: Mapping[str, float] | None = None) -> Path:
    """Write the interpolated model as a Hugging Face folder, with the end model's tokenizer and prompt settings.

    `groups` sets factors of single groups, `factor` that of the others; without it they stay at the start's weights. Raises UserError if
    `out` exists, for factors outside [0, 1], and for two architectures.
    """
    if out.exists():
        raise UserError(f"{out} exists already: name a new folder")
    factors = _factors(factor, groups or {})
    first, _ = load_model(start)
    model, tokenizer = load_model(end)
    text: Any = model.config.get_text_config()
    weights, layers, is_tied = model.state_dict(), getattr(text, "num_hidden_layers", 0), bool(getattr(text, "tie_word_embeddings", False))
    model.load_state_dict(interpolate_weights(first.state_dict(), weights, lambda name: factors[group_of(name, layers, is_tied)]))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, tokenizer, out)
    copy_prompt_settings(end, out)
    return out


def _factors(factor: float | None, groups: Mapping[str, float]) -> dict[str, float]:
    if factor is None and not groups:
        raise UserError("interpolate needs --factor, a number in [0, 1], or --groups with factors of their own, such as late=0.5")
    for name, value in {"--factor": factor or 0.0, **groups}.items():
        if name != "--factor":
            check_known("group of layers", name, GROUPS)
        if not 0 <= value <= 1:
            raise UserError(f"{name} must be in [0, 1], got {value}: 0 is the start, 1 the end")
    return dict.fromkeys(GROUPS, factor or 0.0) | dict(groups)


@dataclass(frozen=True)
class MeasuredModel:
    """The measured skill and knowledge of an interpolated model."""

    factor: float
    skill: float
    """Score on the new task, on items that are only used for this."""
    knowledge: float
    """Score on old knowledge, such as choice accuracy."""


def best_factor(measure: Callable[[float], tuple[float, float]], factors: Sequence[float], *, keeps: float = 0.98) -> MeasuredModel:
    """Return the (lowest) factor with the highest skill, among those that keep a share `keeps` of the start's knowledge.

    The start (factor 0) is measured too.

    >>> best_factor(lambda a: (a, 1 - a * a), [0.1, 0.5, 1.0], keeps=0.9).factor
    0.1
    """
    found = [MeasuredModel(factor, *measure(factor)) for factor in sorted({0.0, *factors})]
    kept = [each for each in found if each.knowledge >= keeps * found[0].knowledge]
    return max(kept, key=lambda each: (each.skill, -each.factor))
