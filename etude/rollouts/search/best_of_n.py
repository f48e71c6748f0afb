"""Best-of-n sampling: whole answers from the root, which are plain samples (`etude.rollouts.samples`)."""

from collections.abc import Generator

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def best_of_n(tree: Tree, *, width: int) -> Generator[list[Growth], list[Node], None]:
    """Sample `width` answers."""
    for node in (yield [Growth(tree.root, width, to_end=True)]):
        tree.back_up(node)
