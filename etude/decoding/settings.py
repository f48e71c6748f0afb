"""How an answer is decoded from several, as it is told to a command; free of torch, so that settings are read and checked without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from etude.engine.settings import Sampling
from etude.errors import UserError, at_least, check_known

Confidence = Literal["agreement", "entropy", "clusters"]
Layout = Literal["turns", "one_message"]
Choose = Literal["agreement", "likelihood", "cycle"]
AGAIN = "Answer again."
MINILM = "minilm"
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
    """How a question is answered from samples of answers to it."""

    method: str = "none"
    """`none` (plain decoding); `majority`, `universal_self_consistency` (the model says which of its samples agrees most with the others),
    `self_reflection` (it reads them all and answers again), `integrative` (inputs with a sample each are decoded as one),
    `integrative_mean_prob`; `layer_contrast_static`, `layer_contrast_dynamic` (the last layer against an earlier one), `layer_candidates`
    (an answer for each of k sets of layers); `context_contrast` (with evidence against without); `abstain` (the majority where it is large
    enough, else no answer); or a control: `best_logprob`, `integrative_original`, `integrative_unrelated`,
    `integrative_same_sample`, `random_layer`."""
    k: int = 4
    """Samples of each question; of `layer_candidates` the sets of layers, of `integrative_original` the wordings."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    """How these are drawn."""
    again: str = AGAIN
    """What the model is told behind a sample, before the question once more."""
    layout: Layout = "turns"
    """Where a sample stands in an input: `turns`, as the model's own answer, whose keys and values are there from sampling; `one_message`,
    in the user's words between the question and itself, as Cheng et al. 2025 have it."""

    stop_agreed: bool = False
    """Whether samples are drawn two, four, ... up to k, and a question is answered as soon as all of its samples give the same answer."""
    layers: list[int] = field(default_factory=list)
    """Layers that the last one is set against, from 0, the embeddings; empty: those of `layer_set`, for `layer_contrast_static` the middle
    one."""
    layer_set: Literal["low", "high"] = "high"
    """Every other layer of the lower or the upper half."""
    strength: float = 1.0
    """How much of an earlier layer's log-prob is taken off, or of what is said without evidence; 0 is plain decoding."""
    plausible: float = 0.1
    """Tokens less likely than this share of the likeliest one are never said by a contrast of layers; 0: all may be."""
    final_norm: bool = True
    """Whether an earlier layer goes through the norm before the head."""
    choose: Choose = "agreement"
    """Which of the `layer_candidates` is given: the answer of most of them, the one that the model itself finds likeliest, or the one from
    which it comes back to the question."""

    confidence: Confidence = "agreement"
    """What `abstain` goes by: the share of samples that give the winning answer, 1 less the entropy of their answers by that of all
    different ones, or the share of samples in the largest cluster of like meaning, one of which is the answer then."""
    min_confidence: float = 0.5
    """With less there is no answer; 0: there is always one."""
    same: float = 0.9
    """From which cosine of their embeddings on two answers are of one cluster."""
    embedder: str = MINILM
    """Whose embeddings: `minilm`, which ships in a package, a folder or a hub id."""

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
        """What the method takes beside the pool."""
        reads = READS[self.method]
        return {name: getattr(self, name) for name in reads if name not in ("sampling", "embedder")}  # which the pool has

    @property
    def unread(self) -> set[str]:
        """Settings that the method does not read, or the beginnings of their names."""
        names = {each.name for each in fields(self)} - {"method"}
        read = set(READS[self.method] if self.is_on else ()) - (set() if self.by_meaning else {"same", "embedder"})
        return {f"{name}." if name == "sampling" else name for name in names - read}

    @property
    def by_meaning(self) -> bool:
        """Whether answers are embedded."""
        return self.method == "abstain" and self.confidence == "clusters"
