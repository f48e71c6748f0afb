"""Answers that are searched for: a step's attempts in practice, judged as they come, and answers where nobody says what is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from etude.engine.completion import Finish
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError, unknown
from etude.evaluation.measure import Judge, majority
from etude.explore.attempts import Group
from etude.explore.refinement import CHECK, Refinement
from etude.explore.search.expansion import Expansion
from etude.explore.search.growing import Growth, Value, search
from etude.explore.search.settings import METHODS, REFINE, Search
from etude.explore.search.worth import Outcomes, Rollouts, either, likelihood
from etude.explore.tree import Node, Tree
from etude.feedback.verdict import Verdict
from etude.recipes.refining import revised_answers
from etude.recipes.settings import Exploration
from etude.tasks.task import Task

Items = Sequence[tuple[Task, tuple[int, ...]]]
"""Tasks with their prompts as token ids."""

SHORT = {"search": "search.method"}
"""What `--search mcts` is on the command line."""

# ---------------------------------------------------------------------- in practice


def searched(
    engine: TransformersEngine,
    items: Items,
    explore: Exploration,
    judge: Judge,
    names: Sequence[object],
    by_step_model: Value | None = None,
) -> tuple[list[Tree], Outcomes]:
    """A tree for each task, and the verdicts of their answers; random numbers are keyed by `names`."""
    outcomes, sizes = Outcomes(judge), (explore.num_samples, explore.max_new_tokens)
    return grown(engine, items, explore.search, *sizes, explore.sampling, names, outcomes, by_step_model), outcomes


def group_of(tree: Tree, outcomes: Outcomes) -> tuple[Group, list[Verdict]]:
    """A tree's answers as attempts, each as often as it was drawn, with verdicts that know what its steps were worth."""
    verdicts, expected = [], tree.expected()
    for node in tree.ends():
        values = [expected[each] for each in (tree.root, *node.path)]
        steps = () if None in values else tuple(value for value in values if value is not None)
        verdicts += [replace(outcomes.verdicts[node], steps=steps)] * len(node.keys)
    return tree.group(), verdicts


def tree_row(tree: Tree) -> dict[str, Any]:
    """As it is kept in the run folder."""
    return {
        "task": tree.task.key,
        "question": tree.task.question,
        "answer": tree.task.answer,
        "sampled_tokens": tree.sampled_tokens,
        "nodes": tree.to_json(),
    }


# ---------------------------------------------------------------------- in use


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
    """Which of the answers is given: the first whose final answer is that of most; that of the highest value (the likeliest, or by `value`
    step_model); that of which the step model expects most; or as by majority, each vote weighing what the step model expects of it at its
    end (Math-Shepherd, arXiv 2312.08935, which takes the least of its values instead)."""

    turns: int = 2
    """`refine`: how often an answer is written; the last one is given."""
    words: str = CHECK
    """`refine`: what the model is told behind each."""

    def __post_init__(self) -> None:
        if self.method == "none":
            replace(self, method="mcts")  # which has its other settings looked at
        elif self.method not in (*METHODS, REFINE):
            raise unknown("search.method", self.method, ("none", *METHODS, REFINE))
        else:
            super().__post_init__()
            if self.value == "step_model" and self.choose == "majority" and self.method in ("samples", "tree", "vine"):
                raise UserError(
                    f"search.value step_model has no effect on search.method {self.method}, where answers are chosen by majority: set "
                    "search.choose to step_model or weighted"
                )
        if self.turns < 1:
            raise UserError(f"search.turns must be at least 1, got {self.turns}")
        if not self.words.strip():
            raise UserError("search.words is empty: write what the model is told, or leave the setting out")

    @property
    def is_on(self) -> bool:
        return self.method != "none"

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
    node = tree.best() if how.choose == "value" else _most_agree(tree)
    if by_step_model and how.choose in ("step_model", "weighted"):
        worth = dict(zip(tree.ends(), by_step_model([(tree, node) for node in tree.ends()]), strict=True))
        weights = {node: value or 0.0 for node, value in worth.items()}
        node = _most_agree(tree, weights) if how.choose == "weighted" else max(weights, key=weights.__getitem__)
    assert node and node.finish  # a search ends with one answer at least
    answers = sum(len(end.keys) for end in tree.ends())
    return Answer(tree.text_of(node), node.finish, tree.sampled_tokens, {"answers": answers}, tree)


def _most_agree(tree: Tree, weights: Mapping[Node, float] | None = None) -> Node:
    """Every answer has as many votes as it was drawn, of these weights."""
    votes = [node for node in tree.ends() for _ in node.keys]
    texts = [tree.text_of(node) for node in votes]
    return votes[majority(texts, None if weights is None else [weights[node] for node in votes])]


# ---------------------------------------------------------------------- both


def grown(
    engine: TransformersEngine,
    items: Items,
    how: Search,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    ends: Value,
    by_step_model: Value | None = None,
) -> list[Tree]:
    """A tree for each task, about as many at once as the engine has positions for, were all answers as long as they may be; `ends` says
    what answers that ended are worth.
    """
    longest = max(len(prompt) for _, prompt in items)
    most = how.answers(num_samples) * max_new_tokens
    at_once = max(1, engine.batch_tokens // (longest + min(most, how.budget_tokens or most)))
    trees: list[Tree] = []
    for start in range(0, len(items), at_once):
        some = items[start : start + at_once]
        expansion = Expansion(
            engine,
            [task for task, _ in some],
            [prompt for _, prompt in some],
            steps=None if how.method == "tree" else how.steps,  # which makes its steps by branching
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            names=names,
            places=range(start, start + len(some)),
        )
        _grow(expansion, how, num_samples, ends, by_step_model)
        trees += expansion.trees
    return trees


def _grow(expansion: Expansion, how: Search, num_samples: int, ends: Value, by_step_model: Value | None) -> None:
    rollouts = Rollouts(expansion, ends, how.rollouts)
    kinds: dict[str, Value | None] = {"rollouts": rollouts, "likelihood": likelihood, "step_model": by_step_model}
    going = kinds[how.value]
    assert going

    def most_tokens(tree: Tree, growth: Growth) -> int:
        """Of one continuation, with what it takes to say what it is worth."""
        more = rollouts.most_tokens(tree, growth, expansion.most_tokens) if going is rollouts else 0
        return expansion.most_tokens(tree, growth) + more

    rule, value = how.rule(num_samples), either(ends, going)
    search(expansion.trees, rule, expansion, value, most_tokens=most_tokens, budget_tokens=how.budget_tokens)
