"""A step's attempts by search: trees at its tasks, whose answers are judged as they come, as groups with verdicts."""

from collections.abc import Sequence
from dataclasses import replace

from etude.engine.transformers import TransformersEngine
from etude.evaluation.measure import Judge
from etude.explore.attempts import Group
from etude.explore.search.expansion import Expansion
from etude.explore.search.growing import Growth, Value, search
from etude.explore.search.worth import Outcomes, Rollouts, either, likelihood
from etude.explore.tree import Tree
from etude.feedback.verdict import Verdict
from etude.recipes.settings import Exploration
from etude.tasks.task import Task


def searched(
    engine: TransformersEngine,
    items: Sequence[tuple[Task, tuple[int, ...]]],
    explore: Exploration,
    judge: Judge,
    names: Sequence[object],
) -> tuple[list[Tree], Outcomes]:
    """A tree for each task with its prompt, and the verdicts of their answers; random numbers are keyed by `names`."""
    how = explore.search
    expansion = Expansion(
        engine,
        [task for task, _ in items],
        [prompt for _, prompt in items],
        steps=None if how.method == "tree" else how.steps,  # which makes its steps by branching
        max_new_tokens=explore.max_new_tokens,
        sampling=explore.sampling,
        names=names,
    )
    outcomes = Outcomes(judge)
    rollouts = Rollouts(expansion, outcomes, how.rollouts)
    going: Value = likelihood if how.value == "likelihood" else rollouts

    def most_tokens(tree: Tree, growth: Growth) -> int:
        """Of one continuation, with what it takes to say what it is worth."""
        more = rollouts.most_tokens(tree, growth, expansion.most_tokens) if going is rollouts else 0
        return expansion.most_tokens(tree, growth) + more

    search(
        expansion.trees,
        how.rule(explore.num_samples),
        expansion,
        either(outcomes, going),
        most_tokens=most_tokens,
        budget_tokens=how.budget_tokens or explore.num_samples * explore.max_new_tokens,
    )
    return expansion.trees, outcomes


def group_of(tree: Tree, outcomes: Outcomes) -> tuple[Group, list[Verdict]]:
    """A tree's answers as attempts, each as often as it was drawn, with verdicts that know what its steps were worth."""
    verdicts = []
    for node in tree.ends():
        values = [tree.expected(each) for each in (tree.root, *node.path)]
        steps = () if None in values else tuple(value for value in values if value is not None)
        verdicts += [replace(outcomes.verdicts[node], steps=steps)] * len(node.keys)
    return tree.group(), verdicts
