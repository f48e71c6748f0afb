"""Values of a search's nodes: feedback on finished answers, expectations for unfinished ones.

outcome      a verifier's score of a finished answer; unknown for unfinished ones
rollouts     the mean score of some whole answers that continue from a node, which stay in the tree (VinePPO, arXiv 2410.01679, sec. 4;
             Math-Shepherd's soft label, arXiv 2312.08935, sec. 3.3)
likelihood   the geometric mean of the probabilities of a node's own tokens: the policy's certainty, which is no feedback
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from etude.rollouts.search.growing import Expand, Growth, Value
from etude.rollouts.tree import Node, Tree
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Judge = Callable[[Sequence[tuple[str, Task]]], Sequence[Reward]]
Pairs = Sequence[tuple[Tree, Node]]


class Outcomes:
    """Scores finished answers; rewards are kept by node, and each answer is judged once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.rewards: dict[Node, Reward] = {}

    def __call__(self, pairs: Pairs) -> list[float | None]:
        new: dict[Tree, list[Node]] = {}
        for tree, node in pairs:
            if node.finish and node not in self.rewards:
                new.setdefault(tree, []).append(node)
        for tree, ends in new.items():  # one tree a call: random scores depend on indices in the call
            rewards = self.judge([(tree.text_of(node), tree.task) for node in ends])
            self.rewards |= dict(zip(ends, rewards, strict=True))
            for node in ends:
                node.is_right = self.rewards[node].is_right
        return [self.rewards[node].score if node.finish else None for _, node in pairs]


def likelihood(pairs: Pairs) -> list[float | None]:
    """Return exp of the mean log-prob of the own tokens."""
    return [math.exp(fmean(node.own_logprobs)) for _, node in pairs]


class Rollouts:
    """Values unfinished answers by the mean score of `number` continuations of each."""

    def __init__(self, expand: Expand, ends: Value, number: int) -> None:
        self.expand, self.ends, self.number = expand, ends, number

    def most_tokens(self, tree: Tree, growth: Growth, most_tokens: Callable[[Tree, Growth], int]) -> int:
        """Return the most tokens needed to value one continuation: 0 for a whole answer."""
        return 0 if growth.to_end else self.number * most_tokens(tree, Growth(growth.node, 1, to_end=True))

    def __call__(self, pairs: Pairs) -> list[float | None]:
        drawn = self.expand([(tree, Growth(node, self.number, to_end=True)) for tree, node in pairs]) if pairs else []
        new = {end: tree for (tree, _), ends in zip(pairs, drawn, strict=True) for end in ends if end.value is None}
        for end, value in zip(new, self.ends([(tree, end) for end, tree in new.items()]), strict=True):
            end.value = value
        return [_mean([end.value for end in ends]) for ends in drawn]


def either(ends: Value, going: Value) -> Value:
    """Combine two values: `ends` for finished answers, `going` for unfinished ones."""

    def value(pairs: Pairs) -> list[float | None]:
        parts: list[list[tuple[Tree, Node]]] = [[pair for pair in pairs if bool(pair[1].finish) == ended] for ended in (True, False)]
        found = [iter(kind(part)) for kind, part in zip((ends, going), parts, strict=True)]
        return [next(found[0] if node.finish else found[1]) for _, node in pairs]

    return value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
