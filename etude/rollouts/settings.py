"""How a step's attempts are made."""

from dataclasses import dataclass, field, replace

from etude.engine.settings import LEAST_TEMPERATURE, Sampling
from etude.errors import UserError, at_least
from etude.rollouts.curriculum import CurriculumSettings
from etude.rollouts.hints import HINT
from etude.rollouts.refinement import Refinement
from etude.rollouts.search.settings import REFINE, Search
from etude.rollouts.self_made.settings import SelfMade
from etude.rollouts.stopping import StopWhen


@dataclass(frozen=True)
class Exploration:
    """The attempts of a step."""

    tasks_per_step: int = 16
    num_samples: int = 8
    """Attempts at each task: the group."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    temperature_end: float | None = None
    """Temperature of the last step, to which that of explore.sampling changes by equal amounts from the first step on; None: it stays.
    Evaluation has that of explore.sampling."""
    variants: list[str] = field(default_factory=list)
    """Paragraphs behind the question, of which attempt i at a task has the i-th, around and around ("" asks as it is), and is learned from
    as it was asked; none asks all attempts alike, as evaluation does."""
    search: Search = field(default_factory=Search)
    refine: Refinement = field(default_factory=Refinement)
    """Of explore.search.method refine: an attempt, feedback in words, a revised attempt, for a number of turns."""
    rationalise: bool = False
    """Whether a task at which no attempt was right gets as many attempts again with its answer shown, from which `imitation` and
    `preference` learn as if it had not been shown (STaR)."""
    hint: str = HINT
    """How it is shown."""
    curriculum: CurriculumSettings = field(default_factory=CurriculumSettings)
    """Which tasks come next."""
    self_made: SelfMade = field(default_factory=SelfMade)
    """Problems that the policy writes itself, beside the tasks."""
    stop_when_decided: StopWhen = "never"
    """Whether a group gets the second half of its attempts only where the first half leaves doubt: not if all are `right`, or `wrong`, or
    `either`. Fewer attempts, but tasks that are nearly learnt (or hopeless) count less (`etude/rollouts/stopping.py`)."""

    @property
    def is_search(self) -> bool:
        """Whether attempts come from a tree."""
        return self.search.method not in ("samples", REFINE)

    @property
    def turns(self) -> int:
        """Answers in an attempt at most."""
        return self.refine.turns if self.search.method == REFINE else 1

    def sampling_at(self, step: int, steps: int) -> Sampling:
        """How tokens are drawn in step `step` of `steps`, counted from 1.

        >>> [Exploration(temperature_end=0.5).sampling_at(step, 3).temperature for step in (1, 2, 3)]
        [1.0, 0.75, 0.5]
        """
        if self.temperature_end is None or steps < 2:
            return self.sampling
        share = (step - 1) / (steps - 1)
        return replace(self.sampling, temperature=(1 - share) * self.sampling.temperature + share * self.temperature_end)

    def __post_init__(self) -> None:
        at_least("explore.tasks_per_step", self.tasks_per_step, 1)
        at_least("explore.num_samples", self.num_samples, 1)
        at_least("explore.max_new_tokens", self.max_new_tokens, 1)
        if "{answer}" not in self.hint:
            raise UserError(f"explore.hint must say where the answer stands, with {{answer}}, got {self.hint!r}")
        if self.search.method != "samples" and (self.rationalise or self.stop_when_decided != "never"):
            name = "rationalise" if self.rationalise else "stop_when_decided"
            raise UserError(
                f"explore.{name} is for independent attempts, and explore.search.method {self.search.method} makes others: leave it out, "
                "or set the method to samples"
            )
        if self.stop_when_decided != "never" and self.num_samples < 4:
            raise UserError(
                f"explore.stop_when_decided {self.stop_when_decided} judges by the first half of explore.num_samples {self.num_samples}, "
                "and one attempt alone says nothing: set num_samples to 4 or more, or stop_when_decided to never"
            )
        if self.temperature_end is not None and self.temperature_end < LEAST_TEMPERATURE:
            raise UserError(
                f"explore.temperature_end must be {LEAST_TEMPERATURE} or more, got {self.temperature_end}: at 0 all attempts at a task are "
                "equal"
            )
        if self.temperature_end is not None and self.self_made.is_on:
            raise UserError(
                f"explore.temperature_end {self.temperature_end} changes the temperature of attempts, but explore.self_made samples at "
                "that of explore.sampling: leave the former out, or set explore.self_made.method to none"
            )
        if len(self.variants) > self.num_samples:
            raise UserError(
                f"explore.variants has {len(self.variants)} prompts for explore.num_samples {self.num_samples} attempts: name fewer, or "
                "raise num_samples"
            )
        if self.variants and self.search.method != "samples":
            raise UserError(
                "explore.variants asks for independent attempts in different words, which explore.search.method "
                f"{self.search.method} can't: leave the variants out, or set the method to samples"
            )
        for name, value, least in (("temperature", self.sampling.temperature, 0.0), ("top_k", self.sampling.top_k, 1)):
            if value == least:
                raise UserError(f"explore.sampling.{name} {value} makes all attempts at a task equal, so that there is nothing to learn")
        if (self.sampling.top_p, self.sampling.top_k, self.sampling.min_p) != (1.0, 0, 0.0):
            raise UserError(
                "explore.sampling.top_p, top_k and min_p cut tokens off, which biases ratios: leave them out, vary the temperature"
            )
