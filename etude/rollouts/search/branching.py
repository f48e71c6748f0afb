"""A tree that branches at the tokens of highest surprise (TreeRL, arXiv 2506.11902, sec. 3.1).

Answers are sampled from the root. In each round, every answer, with its branches, is branched at its tokens of highest surprise, -log p of
the sampled token: other continuations are sampled from right before it. The paper takes 6 answers, 1 round, 2 tokens, 2 continuations: up
to 30 answers. It does not branch after words that announce the final answer; this does.

Identity: without rounds, best of n.
"""

from collections import Counter
from collections.abc import Generator

from etude.rollouts.search.growing import Growth
from etude.rollouts.tree import Node, Tree


def branching(tree: Tree, *, chains: int, rounds: int, forks: int, width: int) -> Generator[list[Growth], list[Node], None]:
    """Sample `chains` answers from the root. In a round, `forks` tokens for each of them are branched with `width` continuations each, also
    if two are alternatives at one place. For answers with a common first step, the most surprising tokens among all of them are taken.
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
    """Return the nodes that end right before the most surprising tokens of the answers that begin with this node."""
    places = [(logprob, node, place) for node in first.below() for place, logprob in enumerate(node.logprobs)]
    chosen = sorted(places, key=lambda place: place[0])[:number]  # stable sort: the first of equals
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
