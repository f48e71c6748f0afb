"""Table of decoding methods, with the settings that each reads."""

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
from etude.decoding.sample_pool import DecodedAnswer
from etude.decoding.self_reflection import self_reflection
from etude.decoding.settings import READS
from etude.decoding.universal_self_consistency import universal_self_consistency


@dataclass(frozen=True)
class Method:
    """A decoding method."""

    answer: Callable[..., list[DecodedAnswer]]
    """(sample pool, its settings by name) → an answer to each question."""
    reads: tuple[str, ...]
    """Settings of `ReliableDecoding`; `sampling` and `embedder` are the pool's."""
    is_control: bool = False
    chooses: bool = False
    """Whether the answer is one of the samples, so that nothing else is sampled."""


METHODS: Mapping[str, Method] = {
    "majority": Method(majority, READS["majority"], chooses=True),
    "universal_self_consistency": Method(universal_self_consistency, READS["universal_self_consistency"]),
    "self_reflection": Method(self_reflection, READS["self_reflection"]),
    "integrative": Method(integrative, READS["integrative"]),
    "integrative_mean_prob": Method(integrative_mean_prob, READS["integrative_mean_prob"]),
    "layer_contrast_static": Method(layer_contrast_static, READS["layer_contrast_static"]),
    "layer_contrast_dynamic": Method(layer_contrast_dynamic, READS["layer_contrast_dynamic"]),
    "layer_candidates": Method(layer_candidates, READS["layer_candidates"]),
    "context_contrast": Method(context_contrast, READS["context_contrast"]),
    "abstain": Method(abstain, READS["abstain"], chooses=True),
    "best_logprob": Method(best_logprob, READS["best_logprob"], is_control=True, chooses=True),
    "integrative_original": Method(integrative_original, READS["integrative_original"], is_control=True),
    "integrative_unrelated": Method(integrative_unrelated, READS["integrative_unrelated"], is_control=True),
    "integrative_same_sample": Method(integrative_same_sample, READS["integrative_same_sample"], is_control=True),
    "random_layer": Method(random_layer, READS["random_layer"], is_control=True),
}
