"""Settings of a search for an answer; without torch, so that they are read and checked without it."""

from dataclasses import dataclass, fields
from typing import Literal

from etude.engine.settings import Sampling
from etude.errors import UserError, at_least, unknown
from etude.rollouts.refinement import CHECK, Refinement
from etude.rollouts.search.settings import BY_VALUE, REFINE, SEARCHES, Search

SHORT = {"search": "search.method", "method": "decoding.method", "k": "decoding.k", "temperature": "sampling.temperature"}
"""Short options of the command line: `--search mcts`, `--method integrative --k 4`, `--temperature 0.7`."""


@dataclass(frozen=True)
class AnswerSearch(Search):
    """Settings of a search for an answer without a verifier."""

    method: str = "none"
    """`none` (no search), `samples` (independent answers), `beam` (over steps), `mcts` (over steps), `tree` (branches at the least likely
    sampled tokens), `vine` (more answers from every step) or `refine` (an answer that is revised)."""
    value: Literal["rollouts", "likelihood", "step_model"] = "likelihood"
    """Value of an answer: `likelihood` = its likelihood under the policy; `rollouts` = the same, of a prefix the mean likelihood of
    continuations; `step_model` = the prediction of the step model that is saved with the model."""
    choose: Literal["majority", "value", "step_model", "weighted"] = "majority"
    """Answer to return: `majority` = the first with the most frequent final answer, weighted by the policy's probability of it, not by how
    often the search sampled it; `value` = the highest value; `step_model` = the highest value of the step model; `weighted` = majority with
    votes weighted by the step model's value at the end (Math-Shepherd, arXiv 2312.08935, which takes the minimum of its values)."""

    turns: int = 2
    """`refine`: answers to write; the last one is returned."""
    words: str = CHECK
    """`refine`: message to the model after each answer."""

    def __post_init__(self) -> None:
        if self.method == "none":
            self.check_sizes()
        elif self.method not in (*SEARCHES, REFINE):
            raise unknown("search.method", self.method, ("none", *SEARCHES, REFINE))
        else:
            super().__post_init__()
            if self.value == "step_model" and self.choose == "majority" and self.method in ("samples", "tree", "vine"):
                raise UserError(
                    f"search.value step_model has no effect on search.method {self.method}, where answers are chosen by majority: set "
                    "search.choose to step_model or weighted"
                )
        at_least("search.turns", self.turns, 1)
        if not self.words.strip():
            raise UserError("search.words is empty: write the message to the model, or leave the setting out")

    @property
    def is_on(self) -> bool:
        return self.method != "none"

    @property
    def unread(self) -> set[str]:
        """Return the settings that the method does not read, or the prefixes of their names."""
        every = {"steps." if field.name == "steps" else field.name for field in fields(self)} - {"method"}
        if not self.is_on:
            return every
        if self.method == REFINE:
            return every - {"turns", "words"}
        is_valued = self.choose == "value" or self.method in BY_VALUE
        return (super().unread - {"value", "budget_tokens"}) | {"turns", "words"} | (set() if is_valued else {"value"})

    def answers(self, num_samples: int) -> int:
        """Return the approximate number of whole answers that it samples at most."""
        if not self.is_on:
            return 1
        return self.turns if self.method == REFINE else super().answers(num_samples)

    @property
    def needs_step_model(self) -> bool:
        return self.is_on and self.method != REFINE and (self.value == "step_model" or self.choose in ("step_model", "weighted"))

    @property
    def refinement(self) -> Refinement:
        """Return the settings of method `refine`."""
        return Refinement(self.turns, "fixed", fixed_words=self.words)

    def check(self, sampling: Sampling) -> None:
        """Check that the search gets different answers. Raises UserError for greedy sampling."""
        if self.is_on and self.method != REFINE and sampling.is_greedy:
            raise UserError(
                f"search.method {self.method} chooses among different answers, but at temperature 0 all are equal: set "
                "sampling.temperature above 0, such as 1"
            )
