"""What the learner takes in: token sequences with a weight for every completion token in each of five streams.

policy      the advantage of a sampled token: policy gradient
imitate     how much a token's log-likelihood counts: demonstrations, own best attempts
anchor      how much a token's divergence from the reference model counts
likelihood  how much a completion's log-likelihood counts just now, by a loss over whole completions (`etude.learn.sequences`)
replay      how much a replayed token counts, which comes beside the batch (`etude.learn.replay`)

Policy and anchor compare with the distribution that sampled, so their log-probs are those at the temperature of sampling. The other three
learn likelihoods, which are the model's own at temperature 1: -log softmax(z / T) is least at z = T log p.
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
    """Log-probs under which the tokens were sampled; the policy and anchor streams need them."""
    reference_logprobs: Weights | None = None
    """Log-probs under the reference model; the anchor stream needs them, and an anchor on replay."""
    marks: Weights | None = None
    """What a policy loss that looks at the whole batch makes of each token beforehand."""

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
        """Whether it is in a stream that is read at the temperature of sampling."""
        return self.policy is not None or self.anchor is not None

    def apart(self) -> "list[Example]":
        """Examples that are read at one temperature each: two where it is in streams of both kinds."""
        if not self.is_sampled or (self.imitate is None and self.likelihood is None and self.replay is None):
            return [self]
        return [replace(self, policy=None, anchor=None), replace(self, imitate=None, likelihood=None, replay=None)]


def demonstration(prompt: Sequence[int], completion: Sequence[int]) -> Example:
    """Return an example to imitate, every token with weight 1."""
    return Example(tuple(prompt), tuple(completion), imitate=(1.0,) * len(completion))
