"""Examples, the learner's input: token sequences with a weight for every completion token in each of five streams.

policy      the advantage of a sampled token: policy gradient
imitate     weight of a token's log-likelihood: demonstrations, own best attempts
anchor      weight of a token's divergence from the reference model
likelihood  current weight of a completion's log-likelihood, from a loss over whole completions (`etude.learn.sequences`)
replay      weight of a replayed token, in addition to the batch (`etude.learn.replay`)

Policy and anchor compare with the distribution that sampled, so they use log-probs at the sampling temperature. The other three learn
likelihoods of the model at temperature 1: -log softmax(z / T) is least at z = T log p.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

Weights = tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """One completion of a prompt; prompt tokens never carry weight."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    policy: Weights | None = None
    """Advantage of every completion token (any real numbers); None: not in this stream."""
    imitate: Weights | None = None
    anchor: Weights | None = None
    likelihood: Weights | None = None
    replay: Weights | None = None
    behaviour_logprobs: Weights | None = None
    """Log-probs of the tokens when they were sampled; the policy and anchor streams need them."""
    reference_logprobs: Weights | None = None
    """Log-probs under the reference model; the anchor stream needs them, and replay with a KL term."""
    marks: Weights | None = None
    """Marks of tokens from a policy loss that reads the whole batch first."""

    def __post_init__(self) -> None:
        for name in ("policy", "imitate", "anchor", "likelihood", "replay", "behaviour_logprobs", "reference_logprobs", "marks"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.completion):
                raise ValueError(f"{name} has {len(values)} numbers for {len(self.completion)} completion tokens")
        if self.is_sampled and self.behaviour_logprobs is None:
            raise ValueError("an example of the policy or the anchor stream needs behaviour_logprobs")
        if not self.prompt or not self.completion:
            raise ValueError("an example needs at least one prompt token and one completion token")

    @property
    def is_sampled(self) -> bool:
        """Whether it is in a stream that uses the sampling temperature."""
        return self.policy is not None or self.anchor is not None

    def apart(self) -> "list[Example]":
        """Return examples with one temperature each: two if it is in streams of both kinds."""
        if not self.is_sampled or (self.imitate is None and self.likelihood is None and self.replay is None):
            return [self]
        return [replace(self, policy=None, anchor=None), replace(self, imitate=None, likelihood=None, replay=None)]


def demonstration(prompt: Sequence[int], completion: Sequence[int]) -> Example:
    """Return an example to imitate, with weight 1 for every token."""
    return Example(tuple(prompt), tuple(completion), imitate=(1.0,) * len(completion))
