"""Which search, and how wide and how long."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from etude.errors import UserError, unknown
from etude.explore.search.beam import beam
from etude.explore.search.best_of_n import best_of_n
from etude.explore.search.branching import branching
from etude.explore.search.growing import Rule
from etude.explore.search.mcts import mcts
from etude.explore.search.vine import vine
from etude.explore.steps import Steps

METHODS = ("samples", "beam", "mcts", "tree", "vine")
"""Independent answers, and the searches."""
REFINE = "refine"
"""No search but a conversation: `etude.explore.refinement`."""


@dataclass(frozen=True)
class Search:
    """How answers are searched for."""

    method: str = "samples"
    """`samples` (independent answers), `beam` (over steps), `mcts` (over steps), `tree` (branches where the policy was surprised), `vine`
    (more answers from behind every step) or `refine` (answers that are revised: explore.refine)."""
    width: int = 4
    """Continuations of a node."""
    beams: int = 4
    """`beam`: beginnings that are gone on with."""
    simulations: int = 8
    """`mcts`: descents from the root."""
    exploration: float = 1.0
    """`mcts`: c of PUCT; values lie between 0 and 1."""
    chains: int = 6
    """`tree`, `vine`: answers from the root."""
    rounds: int = 1
    """`tree`: how often it is branched."""
    forks: int = 2
    """`tree`: tokens of each answer that are branched in a round."""
    to_end: bool = True
    """`mcts`: whether continuations are whole answers; false: single steps, which a step model values."""
    value: Literal["rollouts", "likelihood", "step_model"] = "rollouts"
    """`beam`, and `mcts` not to_end: what is expected of an unfinished answer: the mean score of `rollouts` from there, the policy's own
    likelihood, or what the step model says."""
    rollouts: int = 2
    """`beam`: answers that go on from a beginning whose worth is asked for."""
    budget_tokens: int | None = None
    """Of searches: tokens sampled at a task at most; no bound unless given."""
    steps: Steps = field(default_factory=Steps)
    """`beam`, `mcts`, `vine`, and `samples` whose steps a step model values; a `tree` makes its own. `refine`: those whose values a
    verifier gives."""

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, REFINE):
            raise unknown("search.method", self.method, (*METHODS, REFINE))
        least = {"width": 1, "beams": 1, "simulations": 1, "chains": 1, "rounds": 0, "forks": 1, "rollouts": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"search.{name} must be at least {bound}, got {getattr(self, name)}")
        if self.exploration < 0:
            raise UserError(f"search.exploration must be 0 or more, got {self.exploration}")
        if not self.to_end and (self.method != "mcts" or self.value != "step_model"):
            raise UserError(
                "search.to_end false has mcts draw single steps, whose worth a step model has to say: set search.method to mcts and "
                f"search.value to step_model (they are {self.method} and {self.value}), or leave it out"
            )
        if self.budget_tokens is not None and self.budget_tokens < 1:
            raise UserError(f"search.budget_tokens must be at least 1, got {self.budget_tokens}")

    def answers(self, num_samples: int) -> int:
        """About how many whole answers it draws at most."""
        worth = self.rollouts if self.value == "rollouts" else 0
        found = {
            "samples": num_samples,
            "beam": self.beams * self.width * (1 + worth),
            "mcts": self.simulations * self.width,
            "tree": self.chains * (1 + self.rounds * self.forks * self.width),
            "vine": self.chains * (1 + 4 * self.width),  # of four steps or so
        }
        return max(1, found[self.method])

    def rule(self, num_samples: int) -> Rule:
        """Where a tree grows; `num_samples` independent answers for `samples`."""
        rules: dict[str, Rule] = {
            "samples": partial(best_of_n, width=num_samples),
            "beam": partial(beam, beams=self.beams, width=self.width),
            "mcts": partial(mcts, simulations=self.simulations, width=self.width, exploration=self.exploration, to_end=self.to_end),
            "tree": partial(branching, chains=self.chains, rounds=self.rounds, forks=self.forks, width=self.width),
            "vine": partial(vine, chains=self.chains, width=self.width),
        }
        return rules[self.method]
