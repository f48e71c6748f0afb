"""The search loop: rules ask for continuations of a tree's nodes, which are sampled and valued for many trees at once.

A rule is a generator: it yields growths and is sent the resulting nodes with their values. `expand` samples
(`etude.rollouts.search.expansion`), `value` returns values of nodes; rule, `expand` and `value` do not know each other.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from etude.rollouts.tree import Node, Tree


@dataclass(frozen=True)
class Growth:
    """A request for continuations of a node."""

    node: Node
    width: int
    """Number of continuations."""
    to_end: bool = False
    """Whole answers instead of single steps."""


Rule = Callable[[Tree], Generator[list[Growth], list[Node], None]]
Expand = Callable[[Sequence[tuple[Tree, Growth]]], list[list[Node]]]
"""Samples growths: returns for each the nodes where its continuations end for now, in order; equal ones give the same node."""
Value = Callable[[Sequence[tuple[Tree, Node]]], Sequence[float | None]]
"""Returns the values of answers that end at these nodes, any finite number, or the expected values of unfinished ones."""


def search(
    trees: Sequence[Tree],
    rule: Rule,
    expand: Expand,
    value: Value,
    *,
    most_tokens: Callable[[Tree, Growth], int],
    budget_tokens: int | None = None,
) -> None:
    """Grow the trees until the rule stops for each of them.

    `budget_tokens` limits the tokens sampled for one tree: no continuation begins that could exceed it, by its `most_tokens`; growths share
    it in turns. A tree without a finished answer gets one from its best node, whatever the budget.
    """
    rules = [rule(tree) for tree in trees]
    sent: dict[int, list[Node] | None] = dict.fromkeys(range(len(trees)))
    while sent:
        wanted: list[tuple[int, Growth]] = []
        for place, nodes in sent.items():
            wanted += [(place, growth) for growth in _within(trees[place], _asked(rules[place], nodes), most_tokens, budget_tokens)]
        sent = {place: [] for place, _ in wanted}
        for (place, _), nodes in zip(wanted, _grown(trees, wanted, expand, value), strict=True):
            mine = sent[place]
            assert mine is not None
            mine += nodes
    without = [(place, Growth(_best_open(tree), 1, to_end=True)) for place, tree in enumerate(trees) if not tree.ends()]
    _grown(trees, without, expand, value)


def _asked(rule: Generator[list[Growth], list[Node], None], nodes: list[Node] | None) -> list[Growth]:
    """Return the rule's next growths; [] if it has finished."""
    try:
        return next(rule) if nodes is None else rule.send(nodes)
    except StopIteration:
        return []


def _within(tree: Tree, growths: Iterable[Growth], most_tokens: Callable[[Tree, Growth], int], budget_tokens: int | None) -> list[Growth]:
    """Return the growths that fit into the budget."""
    if budget_tokens is None:
        return [growth for growth in growths if growth.width > 0]
    left, wanted = budget_tokens - tree.sampled_tokens, list(growths)
    each, widths = [most_tokens(tree, growth) for growth in wanted], [0] * len(wanted)
    for turn in range(max((growth.width for growth in wanted), default=0)):  # one continuation for each growth per turn
        for place, growth in enumerate(wanted):
            if turn < growth.width and each[place] <= left:
                widths[place] += 1
                left -= each[place]
    return [replace(growth, width=width) for growth, width in zip(wanted, widths, strict=True) if width > 0]


def _grown(trees: Sequence[Tree], wanted: Sequence[tuple[int, Growth]], expand: Expand, value: Value) -> list[list[Node]]:
    """Sample the growths and return their nodes; new nodes get a value."""
    if not wanted:
        return []
    found = expand([(trees[place], growth) for place, growth in wanted])
    new = {
        node: trees[place]
        for (place, _), nodes in zip(wanted, found, strict=True)
        for node in nodes
        if not node.visits and node.value is None
    }
    for node, worth in zip(new, value([(tree, node) for node, tree in new.items()]), strict=True):
        node.value = worth
    return found


def _best_open(tree: Tree) -> Node:
    """Return the leaf to continue from: the one of highest value, the deepest of equals."""
    leaves = [node for node in tree.nodes() if not node.children]
    return max(leaves, key=lambda node: (-inf if node.value is None else node.value, len(node.path)))
