"""How an answer is searched for, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, fields
from typing import Literal

from etude.engine.settings import Sampling
from etude.errors import UserError, at_least, unknown
from etude.rollouts.refinement import CHECK, Refinement
from etude.rollouts.search.settings import BY_VALUE, REFINE, SEARCHES, Search

SHORT = {"search": "search.method", "method": "decoding.method", "k": "decoding.k"}
"""What `--search mcts` and `--method integrative --k 4` are on the command line."""


@dataclass(frozen=True)
class AnswerSearch(Search):
    """How an answer is searched for where nobody says what is right."""

    method: str = "none"
    """`none` (no search), `samples` (independent answers), `beam` (over steps), `mcts` (over steps), `tree` (branches where the policy was
    surprised), `vine` (more answers from behind every step) or `refine` (an answer that is revised)."""
    value: Literal["rollouts", "likelihood", "step_model"] = "likelihood"
    """What is expected of an answer: the policy's own likelihood, of unfinished ones the mean likelihood of `rollouts` from there, or what
    the step model says that is saved with the model."""
    choose: Literal["majority", "value", "step_model", "weighted"] = "majority"
    """Which of the answers is given: the first whose final answer is that of most, each counting as much as the policy comes to it, however
    often a search drew what is like it; that of the highest value (the likeliest, or by `value`
    step_model); that of which the step model expects most; or as by majority, each vote weighing what the step model expects of it at its
    end (Math-Shepherd, arXiv 2312.08935, which takes the least of its values instead)."""

    turns: int = 2
    """`refine`: how often an answer is written; the last one is given."""
    words: str = CHECK
    """`refine`: what the model is told behind each."""

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
            raise UserError("search.words is empty: write what the model is told, or leave the setting out")

    @property
    def is_on(self) -> bool:
        return self.method != "none"

    @property
    def unread(self) -> set[str]:
        """As for `Search`, of all settings of this one."""
        every = {"steps." if field.name == "steps" else field.name for field in fields(self)} - {"method"}
        if not self.is_on:
            return every
        if self.method == REFINE:
            return every - {"turns", "words"}
        is_valued = self.choose == "value" or self.method in BY_VALUE
        return (super().unread - {"value", "budget_tokens"}) | {"turns", "words"} | (set() if is_valued else {"value"})

    @property
    def needs_step_model(self) -> bool:
        return self.is_on and self.method != REFINE and (self.value == "step_model" or self.choose in ("step_model", "weighted"))

    @property
    def refinement(self) -> Refinement:
        """As a method `refine` revises."""
        return Refinement(self.turns, "fixed", fixed_words=self.words)

    def check(self, sampling: Sampling) -> None:
        """Raise UserError where all answers would be equal."""
        if self.is_on and self.method != REFINE and sampling.is_greedy:
            raise UserError(
                f"search.method {self.method} chooses among different answers, but at temperature 0 all are equal: set "
                "sampling.temperature above 0, such as 1"
            )
