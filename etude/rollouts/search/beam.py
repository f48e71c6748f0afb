"""Beam search over steps: of the steps that continue the best beginnings, the best are gone on with.

Identity: with one beam, width 1 and values that draw nothing (no rollouts), plain sampling.
"""

from collections.abc import Generator
from math import inf

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def beam(tree: Tree, *, beams: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """Every beginning gets `width` next steps; the `beams` of highest value stay, answers that ended among them. Values of steps decide, so
    `value` must know what an unfinished answer is worth; of equals the first stay.
    """
    frontier, ended = [tree.root], list[Node]()
    while frontier:
        steps = dict.fromkeys((yield [Growth(node, width) for node in frontier]))
        for node in steps:
            tree.back_up(node)
        best = sorted([*ended, *steps], key=lambda node: -inf if node.value is None else node.value, reverse=True)[:beams]
        ended, frontier = [node for node in best if node.finish], [node for node in best if not node.finish]
