"""Answers whose steps are valued by continuations from them (VinePPO, arXiv 2410.01679, sec. 4; Math-Shepherd, arXiv 2312.08935).

Answers are sampled from the root and split into steps. More answers are sampled from the end of each step but the last; their scores give
its expected value. The papers learn only from the first answers (VinePPO samples 9 more from each step). Here the others stay in the tree
and count as answers too: their cost is not wasted, and a step's value is `Tree.expected` over all of them.

Identity: with answers of one step, best of n.
"""

from collections.abc import Generator

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def vine(tree: Tree, *, chains: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """Sample `chains` answers from the root, and `width` more from the end of each of their steps."""
    for node in (yield [Growth(tree.root, chains, to_end=True)]):
        tree.back_up(node)
    inner = [node for node in tree.nodes() if node.parent and not node.finish]
    if inner and width:
        for node in (yield [Growth(node, width, to_end=True) for node in inner]):
            tree.back_up(node)
