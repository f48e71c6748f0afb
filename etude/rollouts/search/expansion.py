"""Sample the continuations that searches ask for: those of many trees in one batch, with the engine's kept keys and values.

Random numbers: the first continuation of a node continues the random numbers of its path. Every other continuation has a key of its own,
hashed from the task's names, the node's number and its own. So a search of width 1 samples the same tokens as plain sampling
(`etude.rollouts.samples`), and the results at a node do not depend on other searches in the batch.
"""

from collections.abc import Iterator, Sequence

from etude.engine.completion import Prefix, Stop
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.randomness import seed_for
from etude.rollouts.search.growing import Growth
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Node, Tree
from etude.tasks.task import Task


class Expansion:
    """The trees of some tasks, and the engine's prefixes of their nodes, until the policy changes."""

    def __init__(
        self,
        engine: PrefixEngine,
        tasks: Sequence[Task],
        prompts: Sequence[Sequence[int]],
        *,
        steps: Steps | None,
        max_new_tokens: int,
        sampling: Sampling,
        names: Sequence[object],
        places: Sequence[int] | None = None,
    ) -> None:
        """Set the limits: `max_new_tokens` is for a whole answer. Without `steps`, nodes end where answers part or finish. Keys are hashed
        from `names` (seed, step), the task and its index (in order unless given).
        """
        self.engine, self.steps, self.max_new_tokens, self.sampling = engine, steps, max_new_tokens, sampling
        self.trees = [
            Tree(task, prompt, engine.text_of, policy_version=engine.policy_version) for task, prompt in zip(tasks, prompts, strict=True)
        ]
        places = range(len(tasks)) if places is None else places
        self._names = {id(tree): (*names, place, tree.task.key) for tree, place in zip(self.trees, places, strict=True)}
        self._prefixes: dict[Node, Prefix] = {}
        for tree, prefix in zip(self.trees, engine.open([tree.prompt for tree in self.trees]), strict=True):
            self._prefixes[tree.root] = prefix

    def most_tokens(self, tree: Tree, growth: Growth) -> int:
        """Return the most tokens of one continuation."""
        left = self.max_new_tokens - len(growth.node.own_tokens)
        return left if growth.to_end or self.steps is None else min(left, self.steps.max_tokens)

    def __call__(self, wanted: Sequence[tuple[Tree, Growth]]) -> list[list[Node]]:
        """Sample the continuations of each growth and return the nodes where they end."""
        keys = [[self._key(tree, growth.node, growth.node.drawn + i) for i in range(growth.width)] for tree, growth in wanted]
        rows = [(number, key) for number, own in enumerate(keys) for key in own]
        found: dict[tuple[int, int], Prefix] = {}
        for to_end in (False, True):
            some = [row for row in rows if wanted[row[0]][1].to_end == to_end]
            until = Stop(self.engine.end_tokens, pause=None if to_end or self.steps is None else self.steps.pattern)
            for part in self._parts(some, wanted):
                prefixes = [self._prefix(wanted[number][1].node) for number, _ in part]
                most = [self.most_tokens(*wanted[number]) for number, _ in part]
                drawn = self.engine.extend(prefixes, most, until=until, sampling=self.sampling, keys=[key for _, key in part])
                found |= dict(zip(part, drawn, strict=True))
        return [
            [self._added(tree, growth, key, found[number, key]) for key in own]
            for number, ((tree, growth), own) in enumerate(zip(wanted, keys, strict=True))
        ]

    def _key(self, tree: Tree, node: Node, number: int) -> int:
        if node.keys and number == 0:
            return node.keys[0]
        return seed_for(*self._names[id(tree)], *([node.number] if node.parent else []), number)

    def _parts(self, rows: Sequence[tuple[int, int]], wanted: Sequence[tuple[Tree, Growth]]) -> Iterator[list[tuple[int, int]]]:
        """Yield as many rows at a time as the engine has positions for."""
        part: list[tuple[int, int]] = []
        positions = 0
        for row in rows:
            tree, growth = wanted[row[0]]
            is_there = part and part[-1][0] == row[0] and self.engine.shares_prompts
            behind = 0 if is_there else len(tree.prompt) + len(growth.node.own_tokens)
            more = behind + self.most_tokens(tree, growth)
            if part and positions + more > self.engine.batch_tokens:
                yield part
                part, positions = [], 0
            part.append(row)
            positions += more
        if part:
            yield part

    def _prefix(self, node: Node) -> Prefix:
        """Return the engine's prefix of a node, cut from a longer one if an answer passed through without a stop."""
        if node not in self._prefixes:
            longer = next(self._prefixes[behind] for behind in node.below() if behind in self._prefixes)
            self._prefixes[node] = self.engine.cut(longer, len(node.own_tokens))
        return self._prefixes[node]

    def _added(self, tree: Tree, growth: Growth, key: int, prefix: Prefix) -> Node:
        """Add a continuation to the tree and return its last node."""
        node, before = growth.node, len(growth.node.own_tokens)
        tokens, logprobs = prefix.own_tokens[before:], prefix.own_logprobs[before:]
        tree.sampled_tokens += len(tokens)
        if self.steps is None:
            node = tree.insert(node, tokens, logprobs, key)
        else:
            start = 0
            for length in self.steps.lengths(tokens, tree.decode) if growth.to_end else [len(tokens)]:
                node = tree.add(node, tokens[start : start + length], logprobs[start : start + length], key)
                start += length
        node.finish = prefix.finish or ("length" if len(prefix.own_tokens) >= self.max_new_tokens else None)
        self._prefixes.setdefault(node, prefix)
        return node
