"""Settings of a step's attempts."""

from dataclasses import dataclass, field

from etude.engine.settings import Sampling
from etude.errors import UserError, at_least
from etude.rollouts.early_stop import StopWhen
from etude.rollouts.refinement import Refinement
from etude.rollouts.search.settings import REFINE, Search


@dataclass(frozen=True)
class RolloutSettings:
    """Rollouts: the attempts of a step."""

    tasks_per_step: int = 16
    num_samples: int = 8
    """Attempts per task: the group size (TRL: num_generations)."""
    max_new_tokens: int = 64
    """Longest attempt in tokens; of a revised one, longest turn."""
    sampling: Sampling = field(default_factory=Sampling)
    prompt_variants: list[str] = field(default_factory=list)
    """Paragraphs after the question: attempt i at a task gets the i-th, cyclically ("" = none), and is learned with the prompt it had.
    Empty = the same prompt for all attempts, as in evaluation."""
    search: Search = field(default_factory=Search)
    refine: Refinement = field(default_factory=Refinement)
    """For rollout.search.method refine."""
    early_stop_groups: StopWhen = "never"
    """Skip the second half of a group's attempts if those of the first half are all `right`, all `wrong`, or `either`. Saves tokens, but
    nearly solved (or hopeless) tasks count less (`etude/rollouts/early_stop.py`)."""

    @property
    def is_search(self) -> bool:
        """Whether attempts come from a tree."""
        return self.search.method not in ("samples", REFINE)

    @property
    def turns(self) -> int:
        """Most answers in an attempt."""
        return self.refine.turns if self.search.method == REFINE else 1

    def __post_init__(self) -> None:
        at_least("rollout.tasks_per_step", self.tasks_per_step, 1)
        at_least("rollout.num_samples", self.num_samples, 1)
        at_least("rollout.max_new_tokens", self.max_new_tokens, 1)
        if self.search.method != "samples" and self.early_stop_groups != "never":
            raise UserError(
                f"rollout.early_stop_groups is for independent attempts, and rollout.search.method {self.search.method} makes others: "
                "leave it out, or set the method to samples"
            )
        if self.early_stop_groups != "never" and self.num_samples < 4:
            raise UserError(
                f"rollout.early_stop_groups {self.early_stop_groups} judges by the first half of rollout.num_samples {self.num_samples}, "
                "and one attempt alone says nothing: set num_samples to 4 or more, or early_stop_groups to never"
            )
        if len(self.prompt_variants) > self.num_samples:
            raise UserError(
                f"rollout.prompt_variants has {len(self.prompt_variants)} prompts for rollout.num_samples {self.num_samples} attempts: "
                "name fewer, or raise num_samples"
            )
        if self.prompt_variants and self.search.method != "samples":
            raise UserError(
                "rollout.prompt_variants asks for independent attempts in different words, which rollout.search.method "
                f"{self.search.method} can't: leave the variants out, or set the method to samples"
            )
        for name, value, least in (("temperature", self.sampling.temperature, 0.0), ("top_k", self.sampling.top_k, 1)):
            if value == least:
                raise UserError(f"rollout.sampling.{name} {value} makes all attempts at a task equal, so that there is nothing to learn")
        if (self.sampling.top_p, self.sampling.top_k, self.sampling.min_p) != (1.0, 0, 0.0):
            raise UserError(
                "rollout.sampling.top_p, top_k and min_p cut tokens off, which biases ratios: leave them out, vary the temperature"
            )
