"""How an answer is decoded from several."""

from dataclasses import dataclass, field, fields

from etude.decoding.integrative import AGAIN, Layout
from etude.decoding.methods import METHODS
from etude.engine.sampling import Sampling
from etude.errors import UserError, at_least, unknown


@dataclass(frozen=True)
class ReliableDecoding:
    """How a question is answered from samples of answers to it."""

    method: str = "none"
    """`none` (plain decoding); `majority`, `universal_self_consistency` (the model says which of its samples agrees most with the others),
    `self_reflection` (it reads them all and answers again), `integrative` (inputs with a sample each are decoded as one),
    `integrative_mean_prob`; or a control: `best_logprob`, `integrative_original`, `integrative_unrelated`, `integrative_same_sample`."""
    k: int = 4
    """Samples of each question."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    """How these are drawn."""
    again: str = AGAIN
    """What the model is told behind a sample, before the question once more."""
    layout: Layout = "turns"
    """Where a sample stands in an input: `turns`, as the model's own answer, whose keys and values are there from sampling; `one_message`,
    in the user's words between the question and itself, as Cheng et al. 2025 have it."""

    def __post_init__(self) -> None:
        if self.method not in ("none", *METHODS):
            raise unknown("decoding.method", self.method, ("none", *METHODS))
        at_least("decoding.k", self.k, 1)
        if self.is_on and "sampling." not in self.unread and self.sampling.is_greedy and self.k > 1:
            raise UserError(
                f"decoding.method {self.method} makes an answer of {self.k} samples, but at temperature 0 all are equal: set "
                "decoding.sampling.temperature above 0, such as 0.7"
            )

    @property
    def is_on(self) -> bool:
        return self.method != "none"

    @property
    def unread(self) -> set[str]:
        """Settings that the method does not read, or the beginnings of their names."""
        names = {each.name for each in fields(self)} - {"method"}
        return {f"{name}." if name == "sampling" else name for name in names - set(METHODS[self.method].reads if self.is_on else ())}
