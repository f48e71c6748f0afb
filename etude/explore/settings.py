"""How a step's attempts are made."""

from dataclasses import dataclass, field

from etude.engine.sampling import Sampling
from etude.errors import UserError, at_least
from etude.explore.curriculum import CurriculumSettings
from etude.explore.hints import HINT
from etude.explore.refinement import Refinement
from etude.explore.search.settings import REFINE, Search
from etude.explore.self_made.settings import SelfMade
from etude.explore.stopping import StopWhen


@dataclass(frozen=True)
class Exploration:
    """The attempts of a step."""

    tasks_per_step: int = 16
    num_samples: int = 8
    """Attempts at each task: the group."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    search: Search = field(default_factory=Search)
    refine: Refinement = field(default_factory=Refinement)
    """Of explore.search.method refine: an attempt, feedback in words, a revised attempt, for a number of turns."""
    reuse: bool = False
    """Whether a task's attempts of the last epoch are drafts of the next ones, which have the same random numbers: the present policy's own
    attempts, sooner, but visits of a task are no longer independent (`etude/explore/reuse.py`)."""
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
    `either`. Fewer attempts, but tasks that are nearly learnt (or hopeless) count less (`etude/explore/stopping.py`)."""

    @property
    def is_search(self) -> bool:
        """Whether attempts come from a tree."""
        return self.search.method not in ("samples", REFINE)

    @property
    def turns(self) -> int:
        """Answers in an attempt at most."""
        return self.refine.turns if self.search.method == REFINE else 1

    def __post_init__(self) -> None:
        at_least("explore.tasks_per_step", self.tasks_per_step, 1)
        at_least("explore.num_samples", self.num_samples, 2)
        at_least("explore.max_new_tokens", self.max_new_tokens, 1)
        if "{answer}" not in self.hint:
            raise UserError(f"explore.hint must say where the answer stands, with {{answer}}, got {self.hint!r}")
        if self.reuse and self.rationalise:
            raise UserError(
                "explore.reuse takes over attempts, which those that saw the answer have none of: set it or rationalise to false"
            )
        if self.search.method != "samples" and (self.reuse or self.rationalise or self.stop_when_decided != "never"):
            name = "reuse" if self.reuse else "rationalise" if self.rationalise else "stop_when_decided"
            raise UserError(
                f"explore.{name} is for independent attempts, and explore.search.method {self.search.method} makes others: leave it out, "
                "or set the method to samples"
            )
        if self.stop_when_decided != "never" and self.num_samples < 4:
            raise UserError(
                f"explore.stop_when_decided {self.stop_when_decided} judges by the first half of explore.num_samples {self.num_samples}, "
                "and one attempt alone says nothing: set num_samples to 4 or more, or stop_when_decided to never"
            )
        for name, value, least in (("temperature", self.sampling.temperature, 0.0), ("top_k", self.sampling.top_k, 1)):
            if value == least:
                raise UserError(f"explore.sampling.{name} {value} makes all attempts at a task equal, so that there is nothing to learn")
        if (self.sampling.top_p, self.sampling.top_k, self.sampling.min_p) != (1.0, 0, 0.0):
            raise UserError(
                "explore.sampling.top_p, top_k and min_p cut tokens off, which biases ratios: leave them out, vary the temperature"
            )
