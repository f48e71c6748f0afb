"""Monte-Carlo tree search over steps (PUCT: Silver et al. 2017, Nature 550, Methods; over steps of answers as in rStar-Math, arXiv
2501.04519, which goes by UCT, without a prior).

A simulation descends from the root to a node that has had fewer than `width` continuations, has more drawn, and backs up their worth:

    next = argmax over children of  mean + c · P · √(visits of the node) / (1 + visits of the child)

Continuations are drawn from the policy, so P, a child's prior, is its share of those drawn at its node: where two were alike, they count
twice. `to_end`: continuations are whole answers, whose steps become nodes too, and their scores are what is backed up (a rollout that
stays in the tree); without it they are single steps, and `value` must know what an unfinished answer is worth.

Identity: one simulation `to_end` is best of n; with width 1 plain sampling.
"""

from collections.abc import Generator
from math import sqrt

from etude.explore.search.growing import Growth
from etude.explore.tree import Node, Tree


def mcts(tree: Tree, *, simulations: int, width: int, exploration: float, to_end: bool) -> Generator[list[Growth], list[Node], None]:
    """`exploration` is c. An answer that ended and is come upon again is visited once more; where nothing has a value, the search ends."""
    for _ in range(simulations):
        node = _selected(tree.root, width, exploration)
        if node is None:
            return
        found = [node] if node.finish else (yield [Growth(node, width - node.drawn, to_end)])
        for each in found:
            tree.back_up(each)


def _selected(node: Node, width: int, exploration: float) -> Node | None:
    while not node.finish and node.drawn >= width:
        known = [child for child in node.children if child.visits]
        if not known:
            return None
        node = max(known, key=lambda child: _puct(child, exploration))
    return node


def _puct(child: Node, exploration: float) -> float:
    parent = child.parent
    assert parent
    prior = len(child.keys) / sum(len(each.keys) for each in parent.children)
    return child.total / child.visits + exploration * prior * sqrt(parent.visits) / (1 + child.visits)
