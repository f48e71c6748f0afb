"""A step's attempts from a tree search, scored as they are found."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.rollouts.attempts import Group
from etude.rollouts.baselines import with_values
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.sampler import Items, Judge, Sampler, TimedJudge
from etude.rollouts.search.expansion import Expansion
from etude.rollouts.search.growing import Growth, Value, search
from etude.rollouts.search.node_values import Outcomes, Rollouts, either, likelihood
from etude.rollouts.search.settings import Search
from etude.rollouts.settings import RolloutSettings
from etude.rollouts.tree import Tree
from etude.tasks.reward import Reward


@dataclass
class TreeSampler(Sampler):
    """Samples a tree for each task, whose answers are the group."""

    hard_values: bool = False
    """Whether a prefix is worth 1 if any answer from there is right, instead of the mean reward (Math-Shepherd)."""

    def sample(self, step: int, items: Items) -> RolloutBatch:
        timed, clock = TimedJudge(self.judge), time.perf_counter()
        rollout = replace(self.rollout, sampling=self.sampling)
        trees, outcomes = searched(self.engine, items, rollout, timed, (self.seed, step), self.step_value)
        self.write_trees(step, (tree_row(tree) for tree in trees))
        groups, rewards = zip(*(group_of(tree, outcomes, hard=self.hard_values) for tree in trees), strict=True)
        seconds = {"rollout_seconds": time.perf_counter() - clock - timed.seconds, "feedback_seconds": timed.seconds}
        return RolloutBatch(step, list(groups), list(rewards), {"sampled_tokens": sum(tree.sampled_tokens for tree in trees)}, seconds)


def searched(
    engine: PrefixEngine,
    items: Items,
    rollout: RolloutSettings,
    judge: Judge,
    names: Sequence[object],
    by_step_model: Value | None = None,
) -> tuple[list[Tree], Outcomes]:
    """Search a tree for each task; return the trees and the rewards of their answers. Random numbers are keyed by `names`."""
    outcomes, sizes = Outcomes(judge), (rollout.num_samples, rollout.max_new_tokens)
    return grown(engine, items, rollout.search, *sizes, rollout.sampling, names, outcomes, by_step_model), outcomes


def group_of(tree: Tree, outcomes: Outcomes, *, hard: bool = False) -> tuple[Group, list[Reward]]:
    """Return a tree's answers as attempts, each as often as it was sampled, with rewards that have values of steps (`Tree.expected`)."""
    rewards, expected = [], tree.expected(hard=hard)
    known, draws = {node: value for node, value in expected.items() if value is not None}, tree.draws(expected)
    for node in tree.ends():
        reward = outcomes.rewards[node]
        rewards += [with_values(reward, [tree.root, *node.path], known, draws) if node in known else reward] * len(node.keys)
    return tree.group(), rewards


def tree_row(tree: Tree) -> dict[str, Any]:
    """Return the tree as a row of the run folder."""
    return {
        "task": tree.task.key,
        "question": tree.task.question,
        "answer": tree.task.answer,
        "sampled_tokens": tree.sampled_tokens,
        "nodes": tree.to_json(),
    }


def grown(
    engine: PrefixEngine,
    items: Items,
    how: Search,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    ends: Value,
    by_step_model: Value | None = None,
) -> list[Tree]:
    """Search a tree for each task, as many at once as the engine has positions for if all answers are as long as allowed; `ends` values
    finished answers.
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
            steps=None if how.method == "tree" else how.steps,  # a tree's answers part where they branch
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
        """Return the most tokens of one continuation, with the tokens to value it."""
        more = rollouts.most_tokens(tree, growth, expansion.most_tokens) if going is rollouts else 0
        return expansion.most_tokens(tree, growth) + more

    rule, value = how.rule(num_samples), either(ends, going)
    search(expansion.trees, rule, expansion, value, most_tokens=most_tokens, budget_tokens=how.budget_tokens)
