"""A tree that branches where the policy was surprised (TreeRL, arXiv 2506.11902, sec. 3.1).

Answers are drawn from the root; in each of some rounds every one of them, with what has branched off it, is branched at its tokens of
highest surprise, -log p of the token that was drawn: other continuations are drawn from right before it. The paper takes 6 answers,
1 round, 2 tokens, 2 continuations: up to 30 answers. It does not branch behind words that announce the final answer; here that is not
looked at.

Identity: without rounds, best of n.
"""

from collections import Counter
from collections.abc import Generator

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def branching(tree: Tree, *, chains: int, rounds: int, forks: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """`chains` answers from the root; `forks` tokens for each of them are branched in a round, `width` continuations at each, also where
    two are alternatives at one place. Where answers begin alike, the most surprising tokens of all of them together are taken.
    """
    found = yield [Growth(tree.root, chains, to_end=True)]
    for node in found:
        tree.back_up(node)
    for _ in range(rounds):
        begun = Counter(node.path[0] for node in found)
        places = Counter(fork for first, number in begun.items() for fork in _forks(tree, first, forks * number))
        for node in (yield [Growth(place, width * number, to_end=True) for place, number in places.items()]):
            tree.back_up(node)


def _forks(tree: Tree, first: Node, number: int) -> list[Node]:
    """Nodes that end right before the most surprising tokens of the answers that begin with this node."""
    places = [(logprob, node, place) for node in first.below() for place, logprob in enumerate(node.logprobs)]
    chosen = sorted(places, key=lambda place: place[0])[:number]  # a stable sort: of equals the first
    forks = []
    for node in dict.fromkeys(node for _, node, _ in chosen):
        upper = node
        for place in sorted((place for _, mine, place in chosen if mine is node), reverse=True):
            if place == 0:
                assert upper.parent
                forks.append(upper.parent)
            else:
                upper = tree.split(upper, place)
                forks.append(upper)
    return forks
