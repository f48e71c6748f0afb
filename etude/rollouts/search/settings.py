"""Settings of searches: the method and its sizes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

from etude.errors import UserError, at_least, unknown
from etude.rollouts.search.beam import beam
from etude.rollouts.search.best_of_n import best_of_n
from etude.rollouts.search.branching import branching
from etude.rollouts.search.growing import Rule
from etude.rollouts.search.mcts import mcts
from etude.rollouts.search.vine import vine
from etude.rollouts.steps import Steps

REFINE = "refine"
"""Revision by conversation instead of a search: `etude.rollouts.refinement`."""


@dataclass(frozen=True)
class Search:
    """Settings of the search for answers."""

    method: str = "samples"
    """`samples` (independent answers), `beam` (over steps), `mcts` (over steps), `tree` (branches at the least likely sampled tokens),
    `vine` (more answers from every step) or `refine` (revised answers: rollout.refine)."""
    width: int = 4
    """Continuations of a node."""
    beams: int = 4
    """`beam`: prefixes that are kept at every step."""
    simulations: int = 8
    """`mcts`: simulations, each a descent from the root."""
    exploration: float = 1.0
    """`mcts`: c of PUCT, 0 or more; values are rescaled to [0, 1] by the tree's range, unless all lie there."""
    chains: int = 6
    """`tree`, `vine`: answers sampled from the root."""
    rounds: int = 1
    """`tree`: rounds of branching; 0 = none."""
    forks: int = 2
    """`tree`: tokens of each answer to branch at per round."""
    to_end: bool = True
    """`mcts`: sample complete answers as continuations; false = single steps, which a step model values."""
    value: Literal["rollouts", "likelihood", "step_model"] = "rollouts"
    """`beam`, and `mcts` with to_end false: value of a prefix: the mean score of `rollouts` from it, its likelihood under the policy, or
    the step model's value."""
    rollouts: int = 2
    """`beam`: continuations sampled to value a prefix."""
    budget_tokens: int | None = None
    """Most tokens that a search samples per task; null = no limit."""
    steps: Steps = field(default_factory=Steps)
    """For `beam`, `mcts`, `vine`, and `samples` with a step model; `tree` makes its own. `refine`: the steps that a verifier values.
    Default in practice on tagged actions: an action is a step."""

    def __post_init__(self) -> None:
        if self.method not in (*SEARCHES, REFINE):
            raise unknown("search.method", self.method, (*SEARCHES, REFINE))
        self.check_sizes()
        if not self.to_end and (self.method != "mcts" or self.value != "step_model"):
            raise UserError(
                "search.to_end false has mcts draw single steps, whose worth a step model has to say: set search.method to mcts and "
                f"search.value to step_model (they are {self.method} and {self.value}), or leave it out"
            )

    def check_sizes(self) -> None:
        """Raise UserError for invalid sizes."""
        least = {"width": 1, "beams": 1, "simulations": 1, "chains": 1, "rounds": 0, "forks": 1, "rollouts": 1}
        for name, bound in least.items():
            at_least(f"search.{name}", getattr(self, name), bound)
        if self.exploration < 0:
            raise UserError(f"search.exploration must be 0 or more, got {self.exploration}")
        if self.budget_tokens is not None:
            at_least("search.budget_tokens", self.budget_tokens, 1)

    @property
    def unread(self) -> set[str]:
        """Settings that the method does not read; those of `steps` as `steps.`."""
        reads = {"steps."} if self.method == REFINE else set(SEARCHES[self.method].reads)
        if self.method == "mcts" and self.to_end:
            reads -= {"value"}
        if self.value != "rollouts":
            reads -= {"rollouts"}
        return {name for kind in SEARCHES.values() for name in kind.reads} - reads

    @property
    def finds_one(self) -> bool:
        """Whether it finds only one answer."""
        is_path = self.method == "beam" and self.value != "rollouts" and min(self.beams, self.width) == 1
        return is_path or self.answers(2) == 1

    def answers(self, num_samples: int) -> int:
        """Return the approximate number of whole answers that it samples at most."""
        return max(1, SEARCHES[self.method].answers(self, num_samples))

    def rule(self, num_samples: int) -> Rule:
        """Return the rule that grows a tree; for `samples`, `num_samples` independent answers."""
        return SEARCHES[self.method].rule(self, num_samples)


class Kind(NamedTuple):
    """A search method, by its settings and a number of independent answers."""

    rule: Callable[[Search, int], Rule]
    answers: Callable[[Search, int], int]
    """Approximate number of answers that it samples at most."""
    reads: tuple[str, ...]
    """Settings of a search that it reads; `steps.` for those of `steps`."""


SEARCHES = {
    "samples": Kind(
        rule=lambda how, num_samples: partial(best_of_n, width=num_samples),
        answers=lambda how, num_samples: num_samples,
        reads=(),
    ),
    "beam": Kind(
        rule=lambda how, _: partial(beam, beams=how.beams, width=how.width),
        answers=lambda how, _: how.beams * how.width * (1 + (how.rollouts if how.value == "rollouts" else 0)),
        reads=("width", "beams", "value", "rollouts", "budget_tokens", "steps."),
    ),
    "mcts": Kind(
        rule=lambda how, _: partial(mcts, simulations=how.simulations, width=how.width, exploration=how.exploration, to_end=how.to_end),
        answers=lambda how, _: how.simulations * how.width,
        reads=("width", "simulations", "exploration", "to_end", "value", "budget_tokens", "steps."),
    ),
    "tree": Kind(
        rule=lambda how, _: partial(branching, chains=how.chains, rounds=how.rounds, forks=how.forks, width=how.width),
        answers=lambda how, _: how.chains * (1 + how.rounds * how.forks * how.width),
        reads=("width", "chains", "rounds", "forks", "budget_tokens"),
    ),
    "vine": Kind(
        rule=lambda how, _: partial(vine, chains=how.chains, width=how.width),
        answers=lambda how, _: how.chains * (1 + 4 * how.width),  # about four steps each
        reads=("width", "chains", "budget_tokens", "steps."),
    ),
}
"""Independent answers, and the searches."""
BY_STEPS = tuple(name for name, kind in SEARCHES.items() if "steps." in kind.reads)
"""Searches over steps, as `search.steps` defines them."""
BY_VALUE = tuple(name for name, kind in SEARCHES.items() if "value" in kind.reads)
"""Searches that continue from the highest values."""
