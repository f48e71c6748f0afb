"""Settings of decoding methods; does not import torch, so that they are read and checked without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from etude.engine.settings import Sampling
from etude.errors import UserError, at_least, check_known

Confidence = Literal["agreement", "entropy", "clusters"]
Layout = Literal["turns", "one_message"]
Choose = Literal["agreement", "likelihood", "cycle"]
AGAIN = "Answer again."
"""The embedding model that ships in a package (`etude.models.embedding`)."""

_SAMPLES, _INPUTS, _CONTRAST = ("k", "sampling"), ("again", "layout"), ("strength", "plausible", "final_norm")

READS: Mapping[str, tuple[str, ...]] = {
    "majority": _SAMPLES,
    "universal_self_consistency": _SAMPLES,
    "self_reflection": _SAMPLES,
    "integrative": (*_SAMPLES, *_INPUTS, "stop_agreed"),
    "integrative_mean_prob": (*_SAMPLES, *_INPUTS, "stop_agreed"),
    "layer_contrast_static": ("layers", *_CONTRAST),
    "layer_contrast_dynamic": ("layers", "layer_set", *_CONTRAST),
    "layer_candidates": ("k", "choose", *_CONTRAST),
    "context_contrast": ("strength",),
    "abstain": (*_SAMPLES, "confidence", "min_confidence", "same", "embedder"),
    "best_logprob": _SAMPLES,
    "integrative_original": ("k",),
    "integrative_unrelated": (*_SAMPLES, *_INPUTS),
    "integrative_same_sample": ("sampling", *_INPUTS),
    "random_layer": ("layers", "layer_set", *_CONTRAST),
}
"""Settings of `ReliableDecoding` that each method reads, by the names of `etude.decoding.methods.METHODS`; `sampling` and `embedder` are
the pool's."""


@dataclass(frozen=True)
class ReliableDecoding:
    """Settings of a decoding method: one answer from several samples or layers."""

    method: str = "none"
    """`none` (plain decoding); `majority`, `universal_self_consistency` (the model names the sample that agrees most with the others),
    `self_reflection` (it reads all samples and answers again), `integrative` (inputs with one sample each are decoded jointly),
    `integrative_mean_prob`; `layer_contrast_static`, `layer_contrast_dynamic` (the last layer against an earlier one), `layer_candidates`
    (an answer for each of k sets of layers); `context_contrast` (with evidence against without); `abstain` (the majority if it is large
    enough, else no answer); or a control: `best_logprob`, `integrative_original`, `integrative_unrelated`, `integrative_same_sample`,
    `random_layer`.
    """
    k: int = 4
    """Samples per question; for `layer_candidates` the sets of layers, for `integrative_original` the wordings."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    """Sampling of these samples."""
    again: str = AGAIN
    """Instruction after a sample, before the question is repeated."""
    layout: Layout = "turns"
    """Where an input shows a sample: `turns` = as the model's own answer, whose KV cache exists from sampling; `one_message` = in the
    user's message, between the question and its repetition (Cheng et al. 2025)."""

    stop_agreed: bool = False
    """Sample two, four, ... up to k at a time, and stop a question as soon as all its samples agree."""
    layers: list[int] = field(default_factory=list)
    """Layers that the last one is contrasted with, from 0 (the embeddings); empty = those of `layer_set`, for `layer_contrast_static` the
    middle one."""
    layer_set: Literal["low", "high"] = "high"
    """Every other layer of the lower or the upper half."""
    strength: float = 1.0
    """Factor of the subtracted log-prob (of the earlier layer, or of the prediction without evidence); 0 = plain decoding."""
    plausible: float = 0.1
    """Layer contrast: exclude tokens below this share of the most likely one's probability, in [0, 1]; 0 = none."""
    final_norm: bool = True
    """Whether an earlier layer's states pass the final norm before the head."""
    choose: Choose = "agreement"
    """Which of the `layer_candidates` is returned: `agreement` = the answer of most; `likelihood` = the most likely under the model;
    `cycle` = the one from which the model best recovers the question."""

    confidence: Confidence = "agreement"
    """Confidence for `abstain`: `agreement` = share of samples with the winning answer; `entropy` = 1 - normalised entropy of the answers;
    `clusters` = share of samples in the largest cluster of the same meaning, one of which is then the answer."""
    min_confidence: float = 0.5
    """Least confidence for an answer, in [0, 1]; 0 = always answer."""
    same: float = 0.9
    """Cosine similarity of embeddings from which two answers share a cluster, in [0, 1]."""
    embedder: str = "minilm"
    """Embedding model: `minilm`, which ships in a package, a folder or a hub id."""

    def __post_init__(self) -> None:
        check_known("decoding.method", self.method, ("none", *READS))
        at_least("decoding.k", self.k, 1)
        if self.strength < 0:
            raise UserError(f"decoding.strength must be 0 (plain decoding) or more, got {self.strength}")
        for name in ("plausible", "min_confidence", "same"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"decoding.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.is_on and not {"sampling.", "k"} & self.unread and self.sampling.is_greedy and self.k > 1:
            raise UserError(
                f"decoding.method {self.method} makes an answer of {self.k} samples, but at temperature 0 all are equal: set "
                "decoding.sampling.temperature above 0, such as 0.7"
            )

    @property
    def is_on(self) -> bool:
        return self.method != "none"

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of the method other than the pool."""
        reads = READS[self.method]
        return {name: getattr(self, name) for name in reads if name not in ("sampling", "embedder")}  # the pool takes these

    @property
    def unread(self) -> set[str]:
        """Return the settings that the method does not read, or the prefixes of their names."""
        names = {each.name for each in fields(self)} - {"method"}
        read = set(READS[self.method] if self.is_on else ()) - (set() if self.by_meaning else {"same", "embedder"})
        return {f"{name}." if name == "sampling" else name for name in names - read}

    @property
    def by_meaning(self) -> bool:
        """Return whether answers are embedded."""
        return self.method == "abstain" and self.confidence == "clusters"
