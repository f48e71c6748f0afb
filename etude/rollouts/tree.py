"""The record of a search: the sampled steps, their parents and their values.

A node is a step of own tokens after its parent. Continuations with the same first steps share nodes. Everything else is read from the tree:
attempts for the learner, values of steps, preference pairs, a picture.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from etude.engine.completion import Completion, Finish
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.reward import is_right
from etude.tasks.task import Task


@dataclass(eq=False)
class Node:
    """A step, and the results of the search below it."""

    number: int
    """Index in the order of creation; the root is 0."""
    parent: "Node | None"
    tokens: tuple[int, ...]
    """Own tokens of the step; none for the root."""
    logprobs: tuple[float, ...]
    """Their behaviour log-probs."""
    finish: Finish | None = None
    """How the answer that ends here ended; None: unfinished."""
    keys: list[int] = field(default_factory=list)
    """Keys of the continuations that came through here, in order, one per continuation."""
    drawn: int = 0
    """Number of continuations sampled from here."""
    value: float | None = None
    """Score of an answer that ends here, or expected score of an unfinished one; None: unknown."""
    is_right: bool | None = None
    """Whether an answer that ends here is right; None: the reward does not say, and a value of 1 counts as right."""
    visits: int = 0
    total: float = 0.0
    """Sum of the values backed up through this node, one a visit."""
    children: list["Node"] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """Mean of the values backed up through this node; None before any."""
        return self.total / self.visits if self.visits else None

    @property
    def path(self) -> list["Node"]:
        """Nodes from the root's child down to this one."""
        nodes, node = [], self
        while node.parent:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    @property
    def own_tokens(self) -> tuple[int, ...]:
        """Own tokens of the answer up to here."""
        return tuple(token for node in self.path for token in node.tokens)

    @property
    def own_logprobs(self) -> tuple[float, ...]:
        return tuple(logprob for node in self.path for logprob in node.logprobs)

    def below(self) -> Iterator["Node"]:
        """Yield this node and all below it, in preorder."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)


class Tree:
    """The record of a search for one task."""

    def __init__(self, task: Task, prompt: Sequence[int], decode: Callable[[Sequence[int]], str], *, policy_version: int = 0) -> None:
        """Create a tree with only a root; `decode` returns the text of own tokens."""
        self.task, self.prompt, self.decode, self.policy_version = task, tuple(prompt), decode, policy_version
        self.root = Node(0, None, (), ())
        self.num_nodes = 1
        self.sampled_tokens = 0
        """Tokens sampled in total, repeats included."""
        self.lowest, self.highest = 0.0, 0.0
        """Range of the values backed up."""

    def add(self, parent: Node, tokens: Sequence[int], logprobs: Sequence[float], key: int) -> Node:
        """Add a step sampled from `parent`; return the existing node with these tokens, or a new one."""
        node = next((child for child in parent.children if child.tokens == tuple(tokens)), None)
        if node is None:
            node = Node(self.num_nodes, parent, tuple(tokens), tuple(logprobs))
            self.num_nodes += 1
            parent.children.append(node)
        node.keys.append(key)
        parent.drawn += 1
        return node

    def insert(self, parent: Node, tokens: Sequence[int], logprobs: Sequence[float], key: int) -> Node:
        """Add a continuation of `parent` where steps are shared token sequences: a node is split where another answer leaves it."""
        node, start = parent, 0
        while start < len(tokens):
            child = next((child for child in node.children if child.tokens[0] == tokens[start]), None)
            if child is None:
                return self.add(node, tokens[start:], logprobs[start:], key)
            shared = _num_equal(child.tokens, tuple(tokens[start:]))
            if shared < len(child.tokens):
                child = self.split(child, shared)
            child.keys.append(key)
            node.drawn += 1
            node, start = child, start + shared
        return node

    def split(self, node: Node, num_tokens: int) -> Node:
        """Split a node in two and return the first, with `num_tokens` of its tokens. The original node keeps the rest, below it."""
        if not node.parent or not 0 < num_tokens < len(node.tokens):
            raise ValueError(f"a step of {len(node.tokens)} tokens can't be parted after {num_tokens}")
        upper = Node(self.num_nodes, node.parent, node.tokens[:num_tokens], node.logprobs[:num_tokens], keys=list(node.keys))
        self.num_nodes += 1
        upper.drawn, upper.visits, upper.total, upper.children = len(node.keys), node.visits, node.total, [node]
        node.parent.children[node.parent.children.index(node)] = upper
        node.parent, node.tokens, node.logprobs = upper, node.tokens[num_tokens:], node.logprobs[num_tokens:]
        return upper

    def back_up(self, node: Node) -> None:
        """Add a node's value to all nodes on its path, as one visit; an unknown value adds nothing."""
        if node.value is None:
            return
        first = not self.root.visits
        self.lowest = node.value if first else min(self.lowest, node.value)
        self.highest = node.value if first else max(self.highest, node.value)
        for visited in (self.root, *node.path):
            visited.visits += 1
            visited.total += node.value

    def as_share(self, value: float) -> float:
        """Scale a value to the range of those backed up; if all lie in [0, 1], return it unchanged."""
        if self.lowest >= 0 and self.highest <= 1:
            return value
        return (value - self.lowest) / (self.highest - self.lowest) if self.highest > self.lowest else 0.5

    def nodes(self) -> list[Node]:
        """Return all nodes in preorder, the root first."""
        return list(self.root.below())

    def ends(self) -> list[Node]:
        """Return the nodes at which answers end."""
        return [node for node in self.nodes() if node.finish]

    def expected(self, *, hard: bool = False) -> dict[Node, float | None]:
        """Return the expected value of answers from each node: for a finished answer its value, otherwise the mean over its children,
        weighted by how often each was sampled, so that more continuations of a child do not increase its weight. With `hard`: 1 if the
        answer, or any that continued from there, is right, else 0. None if nothing is known.
        """
        found: dict[Node, float | None] = {}
        for node in reversed(self.nodes()):
            known = [(found[child], len(child.keys)) for child in node.children]
            worth = [(value, draws) for value, draws in known if value is not None]
            mean = sum(value * draws for value, draws in worth) / sum(draws for _, draws in worth) if worth else None
            any_right = float(any(value == 1.0 for value, _ in worth)) if worth else None
            found[node] = (_hard(node) if hard else node.value) if node.finish else any_right if hard else mean
        return found

    def shares(self) -> dict[Node, Fraction]:
        """Return the share of the policy's answers that each finished answer stands for: the product along its path of its share of the
        continuations sampled at each node. If a search sampled some prefixes more than others, these do not count as more likely. For
        independent answers it is how often each was sampled. The rest belongs to unfinished answers.
        """
        found = self._shares(self.nodes())
        return {node: found[node] for node in self.ends()}

    def _shares(self, among: Sequence[Node]) -> dict[Node, Fraction]:
        """Return the shares of these nodes, given in preorder from the root; continuations to other nodes do not count."""
        counted = set(among)
        found = {self.root: Fraction(1)}
        for node in among:
            children = [child for child in node.children if child in counted]
            drawn = sum(len(child.keys) for child in children)
            found |= {child: found[node] * Fraction(len(child.keys), drawn) for child in children}
        return found

    def best(self) -> Node | None:
        """Return the answer of the highest value, the first of equals; None if none has a value."""
        known = [node for node in self.ends() if node.value is not None]
        return max(known, key=lambda node: node.value or 0.0, default=None)

    def group(self) -> Group:
        """Return the answers as attempts, each as often as it was sampled. Each step has the share of the policy's answers that the attempt
        stands for there: the step's share, divided by the number of attempts with a value that came through it.
        """
        known = [node for node, value in self.expected().items() if value is not None][::-1]  # in preorder
        shares = self._shares(known) if known else {}
        through = Counter(step for node in self.ends() if node in shares for step in node.path for _ in node.keys)
        each = {step: float(shares[step] / number) for step, number in through.items()}
        return Group(self.task, tuple(self._attempt(node, key, each) for node in self.ends() for key in node.keys))

    def draws(self, expected: Mapping[Node, float | None]) -> dict[Node, dict[Node, tuple[int, float]]]:
        """Return for each node the steps sampled there with known values: how often each was sampled, and its value from `expected`."""
        worth = {node: (len(node.keys), value) for node, value in expected.items() if value is not None}
        return {node: {child: worth[child] for child in node.children if child in worth} for node in expected}

    def _attempt(self, node: Node, key: int, shares: Mapping[Node, float]) -> Attempt:
        assert node.finish
        completion = Completion(node.own_tokens, node.own_logprobs, self.text_of(node), node.finish, key, self.policy_version)
        steps: dict[str, Any] = {
            "step_lengths": tuple(len(step.tokens) for step in node.path),
            "step_shares": tuple(shares.get(step, 0.0) for step in node.path),
        }
        return replace(Attempt.of(self.prompt, completion), **steps)

    def text_of(self, node: Node) -> str:
        """Return the text of the answer up to this node."""
        return self.decode(node.own_tokens)

    def to_json(self) -> list[dict[str, Any]]:
        """Return one row per node, in preorder."""
        text = {node: self.text_of(node) for node in self.nodes()}
        return [
            {
                "number": node.number,
                "parent": node.parent.number if node.parent else None,
                "text": text[node][len(text[node.parent]) :] if node.parent else "",
                "tokens": len(node.tokens),
                "mean_logprob": sum(node.logprobs) / len(node.logprobs) if node.logprobs else None,
                "drawn": len(node.keys),
                "visits": node.visits,
                "mean": node.mean,
                "value": node.value,
                "right": _ends_right(node) if node.finish else None,
                "finish": node.finish,
            }
            for node in text
        ]


def _ends_right(node: Node) -> bool | None:
    """Return whether a finished answer is right; None if it has no value."""
    if node.value is None:
        return None
    return is_right(node.value) if node.is_right is None else node.is_right


def _hard(node: Node) -> float | None:
    """Return 1 for a right answer, 0 for a wrong one; None if it has no value."""
    right = _ends_right(node)
    return None if right is None else float(right)


def _num_equal(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Count the leading tokens that both share."""
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other)))
