"""Answers whose every step is valued by others that go on from it (VinePPO, arXiv 2410.01679, sec. 4; Math-Shepherd, arXiv 2312.08935).

Answers are drawn from the root and parted into steps; from behind each step but the last some more are drawn, whose scores say what was to
be expected there. The papers learn from the first answers alone (VinePPO draws 9 more from each step); here the others stay in the tree and
count as answers too: what they cost is not thrown away, and a step's value is what `Tree.expected` makes of all of them.

Identity: with answers of one step, best of n.
"""

from collections.abc import Generator

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def vine(tree: Tree, *, chains: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """`chains` answers from the root; `width` more from behind each of their steps."""
    for node in (yield [Growth(tree.root, chains, to_end=True)]):
        tree.back_up(node)
    inner = [node for node in tree.nodes() if node.parent and not node.finish]
    if inner and width:
        for node in (yield [Growth(node, width, to_end=True) for node in inner]):
            tree.back_up(node)
