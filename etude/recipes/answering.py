"""An answer that is searched for where nobody says what is right, as `generate` and `evaluate` give it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from etude.engine.completion import Finish
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError, at_least, unknown
from etude.evaluation.measure import majority
from etude.explore.refinement import CHECK, Refinement
from etude.explore.search.growing import Value
from etude.explore.search.settings import BY_VALUE, REFINE, SEARCHES, Search
from etude.explore.search.worth import likelihood
from etude.explore.tree import Node, Tree
from etude.recipes.refining import revised_answers
from etude.recipes.searching import Items, grown
from etude.tasks.answers import voted_answer

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


@dataclass(frozen=True)
class Answer:
    """What a search found for a task."""

    text: str
    finish: Finish
    sampled_tokens: int
    """In the whole search."""
    found: dict[str, Any]
    """What it was taken from: the number of `answers`, or the answers of all `turns`."""
    tree: Tree | None = None


def answered(
    engine: TransformersEngine,
    items: Items,
    how: AnswerSearch,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    room_tokens: int,
    by_step_model: Value | None = None,
) -> list[Answer]:
    """An answer to each task; random numbers are keyed by `names`. `room_tokens`: how long what is gone on from may be."""
    assert by_step_model or not how.needs_step_model
    if how.method == REFINE:
        sizes: dict[str, Any] = {"max_new_tokens": max_new_tokens, "room_tokens": room_tokens, "sampling": sampling}
        attempts = revised_answers(engine, items, how.refinement, **sizes, names=names)
        return [Answer(each.text, each.finish, each.num_own_tokens, {"turns": [*each.before[::2], each.text]}) for each in attempts]
    ends = by_step_model if by_step_model and how.value == "step_model" else likelihood
    trees = grown(engine, items, how, num_samples, max_new_tokens, sampling, names, ends, by_step_model)
    return [_answer(tree, how, by_step_model) for tree in trees]


def _answer(tree: Tree, how: AnswerSearch, by_step_model: Value | None) -> Answer:
    weights: dict[Node, float] = {}
    if by_step_model and how.choose in ("step_model", "weighted"):
        worth = by_step_model([(tree, node) for node in tree.ends()])
        weights = {node: value or 0.0 for node, value in zip(tree.ends(), worth, strict=True)}
    match how.choose:
        case "value":
            node = tree.best()
        case "majority":
            node = _most_agree(tree)
        case "weighted":
            node = _most_agree(tree, weights)
        case "step_model":
            node = max(weights, key=weights.__getitem__)
    assert node and node.finish  # a search ends with one answer at least
    answers = sum(len(end.keys) for end in tree.ends())
    return Answer(tree.text_of(node), node.finish, tree.sampled_tokens, {"answers": answers}, tree)


def _most_agree(tree: Tree, weights: Mapping[Node, float] | None = None) -> Node:
    """Every answer votes with its share of the policy's answers, times these weights."""
    shares = tree.shares()
    votes = [share if weights is None else float(share) * weights[node] for node, share in shares.items()]
    return list(shares)[majority([voted_answer(tree.text_of(node)) for node in shares], votes)]
