"""Monte-Carlo tree search over steps (PUCT: Silver et al. 2017, Nature 550, Methods; over steps of answers as in rStar-Math, arXiv
2501.04519, which uses UCT, without a prior).

A simulation descends from the root to a node with fewer than `width` continuations, samples the missing ones, and backs up their values:

    next = argmax over children of  Q + c · P · √(visits of the node) / (1 + visits of the child)
    Q    = mean                          if all values of the tree so far lie in [0, 1]
           (mean - low) / (high - low)   else: low and high are the least and the greatest value so far (MuZero, arXiv 1911.08265, eq. 5)

So c has the same weight for rewards of any range.

Continuations are sampled from the policy, so P, a child's prior, is its share of the samples at its node; equal ones count twice. With
`to_end`, continuations are whole answers, whose steps become nodes too, and their scores are backed up (rollouts that stay in the tree).
Otherwise they are single steps, and `value` must be known for unfinished answers.

Identity: one simulation `to_end` is best of n; with width 1 plain sampling.
"""

from collections.abc import Generator
from math import sqrt

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def mcts(tree: Tree, *, simulations: int, width: int, exploration: float, to_end: bool) -> Generator[list[Growth], list[Node], None]:
    """Run the simulations; `exploration` is c. Skip nodes below which all answers have ended at full width, and nodes without a value,
    since a visit would add nothing. If there are no others, the search ends.
    """
    for _ in range(simulations):
        node = _selected(tree, width, exploration)
        if node is None:
            return
        for each in (yield [Growth(node, width - node.drawn, to_end)]):
            tree.back_up(each)


def _selected(tree: Tree, width: int, exploration: float) -> Node | None:
    node = tree.root
    while node.drawn >= width:
        open_children = [child for child in node.children if _is_open(child, width)]
        if not open_children:
            return None
        node = max(open_children, key=lambda child: _puct(child, exploration, tree))
    return node


def _is_open(node: Node, width: int) -> bool:
    """Return whether more can be sampled here or below."""
    if node.finish or not node.visits:
        return False
    return node.drawn < width or any(_is_open(child, width) for child in node.children)


def _puct(child: Node, exploration: float, tree: Tree) -> float:
    parent = child.parent
    assert parent
    prior = len(child.keys) / sum(len(each.keys) for each in parent.children)
    return tree.as_share(child.total / child.visits) + exploration * prior * sqrt(parent.visits) / (1 + child.visits)
