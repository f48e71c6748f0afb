"""The methods by name, with the settings that each of them reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from etude.decoding.abstain import abstain
from etude.decoding.best_logprob import best_logprob
from etude.decoding.context_contrast import context_contrast
from etude.decoding.controls import integrative_original, integrative_same_sample, integrative_unrelated
from etude.decoding.integrative import integrative, integrative_mean_prob
from etude.decoding.layer_candidates import layer_candidates
from etude.decoding.layer_contrast import layer_contrast_dynamic, layer_contrast_static, random_layer
from etude.decoding.majority import majority
from etude.decoding.pool import Decoded
from etude.decoding.self_reflection import self_reflection
from etude.decoding.universal_self_consistency import universal_self_consistency


@dataclass(frozen=True)
class Method:
    """A way to answer."""

    answer: Callable[..., list[Decoded]]
    """A pool, and the settings that it takes by name → an answer to each question."""
    reads: tuple[str, ...]
    """Settings of `ReliableDecoding`; `sampling` and `embedder` are the pool's."""
    is_control: bool = False
    chooses: bool = False
    """Whether what it answers is one of its samples, so that nothing else is drawn."""


_SAMPLES, _INPUTS, _CONTRAST = ("k", "sampling"), ("again", "layout"), ("strength", "plausible", "final_norm")

METHODS: Mapping[str, Method] = {
    "majority": Method(majority, _SAMPLES, chooses=True),
    "universal_self_consistency": Method(universal_self_consistency, _SAMPLES),
    "self_reflection": Method(self_reflection, _SAMPLES),
    "integrative": Method(integrative, (*_SAMPLES, *_INPUTS, "stop_agreed")),
    "integrative_mean_prob": Method(integrative_mean_prob, (*_SAMPLES, *_INPUTS, "stop_agreed")),
    "layer_contrast_static": Method(layer_contrast_static, ("layers", *_CONTRAST)),
    "layer_contrast_dynamic": Method(layer_contrast_dynamic, ("layers", "layer_set", *_CONTRAST)),
    "layer_candidates": Method(layer_candidates, ("k", "choose", *_CONTRAST)),
    "context_contrast": Method(context_contrast, ("strength",)),
    "abstain": Method(abstain, (*_SAMPLES, "confidence", "min_confidence", "same", "embedder"), chooses=True),
    "best_logprob": Method(best_logprob, _SAMPLES, is_control=True, chooses=True),
    "integrative_original": Method(integrative_original, ("k",), is_control=True),
    "integrative_unrelated": Method(integrative_unrelated, (*_SAMPLES, *_INPUTS), is_control=True),
    "integrative_same_sample": Method(integrative_same_sample, ("sampling", *_INPUTS), is_control=True),
    "random_layer": Method(random_layer, ("layers", "layer_set", *_CONTRAST), is_control=True),
}
