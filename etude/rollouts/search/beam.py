"""Beam search over steps: extend the best prefixes by sampled steps, and keep the best results.

Identity: with one beam, width 1 and values without rollouts, plain sampling.
"""

from collections.abc import Generator
from math import inf

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def beam(tree: Tree, *, beams: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """Sample `width` next steps for every prefix and keep the `beams` of highest value, finished answers included; ties keep the first.
    `value` must be known for unfinished answers.
    """
    frontier, ended = [tree.root], list[Node]()
    while frontier:
        steps = dict.fromkeys((yield [Growth(node, width) for node in frontier]))
        for node in steps:
            tree.back_up(node)
        best = sorted([*ended, *steps], key=lambda node: -inf if node.value is None else node.value, reverse=True)[:beams]
        ended, frontier = [node for node in best if node.finish], [node for node in best if not node.finish]
