"""How near the update of every search and advantage is to the exact policy gradient, on policies small enough to enumerate.

    python -m bench.gradients [--trees N] [--seeds SEED ...] [--json FILE]

A policy is a table: random logits for every beginning of an answer of some tokens, and a random score of every answer. Of many trees that
a search grows on it (etude's own search, advantages and weights; only the language model is a table) the mean update is compared with the
exact gradient of the expected score, found by enumeration; `pass_at_k` with that of the expected best of k.

cosine   of the mean update and the exact gradient: 1 for an unbiased rule, whatever its scale
noise    of the mean update: its standard error, as a share of its length. It alone takes the cosine down to about 1 - noise² / 2
"""

import random
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log, sqrt
from typing import Any

from etude.engine.completion import Completion
from etude.learn.advantages import ADVANTAGES
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import token_advantages
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.prefix_values import split_into_steps
from etude.rollouts.search.growing import Growth, search
from etude.rollouts.search.node_values import Outcomes, Rollouts, either, likelihood
from etude.rollouts.search.settings import Search
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Node, Tree
from etude.rollouts.tree_search import group_of
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from experiments.benchmark import Argument, Benchmark
from experiments.tables import markdown

Beginning = tuple[int, ...]
Gradient = dict[tuple[Beginning, int], float]
"""Of every logit, by the beginning it stands after and its token."""

ONE_TOKEN = Steps("tokens", max_tokens=1)
PASS_K = 4
SAMPLES = 8
SEARCHES = {
    "samples": Search("samples"),
    "beam": Search("beam", beams=2, width=3, rollouts=2),
    "beam by likelihood": Search("beam", beams=2, width=3, value="likelihood"),
    "mcts": Search("mcts", simulations=6, width=3),
    "tree": Search("tree", chains=4, rounds=1, forks=1, width=2),
    "vine": Search("vine", chains=3, width=2),
}


@dataclass(frozen=True)
class Table:
    """A policy over answers of `length` tokens, and the score of each answer."""

    probabilities: Mapping[Beginning, Sequence[float]]
    scores: Mapping[Beginning, float]
    length: int

    @staticmethod
    def randomly(seed: int, length: int = 4, vocabulary: int = 3) -> "Table":
        """Draw logits from a normal distribution; a third of the scores is 1, a third 0, the others lie between."""
        dice = random.Random(seed)
        inner = [each for depth in range(length) for each in product(range(vocabulary), repeat=depth)]
        logits = {each: [dice.gauss(0, 1) for _ in range(vocabulary)] for each in inner}
        scores = {each: min(1.0, max(0.0, dice.uniform(-1, 2))) for each in product(range(vocabulary), repeat=length)}
        return Table({each: _softmax(row) for each, row in logits.items()}, scores, length)

    def likelihood(self, answer: Beginning) -> float:
        found = 1.0
        for place, token in enumerate(answer):
            found *= self.probabilities[answer[:place]][token]
        return found

    def gradient(self, k: int = 1) -> Gradient:
        """Return the gradient of the best of `k`: the sum over answers x of p(x) · k · E[best of x and k - 1 others] · ∇log p(x)."""
        found: Gradient = defaultdict(float)
        for answer, score in self.scores.items():
            self.add(found, answer, [k * self.likelihood(answer) * self._best(score, k - 1)] * self.length)
        return found

    def _best(self, score: float, others: int) -> float:
        """Return the expected maximum of a score and of those of so many answers."""
        levels = sorted({score, *(each for each in self.scores.values() if each > score)})
        below = [sum(self.likelihood(answer) for answer, other in self.scores.items() if other <= level) ** others for level in levels]
        return sum(level * (mass - before) for level, mass, before in zip(levels, below, [0.0, *below], strict=False))

    def add(self, gradient: Gradient, answer: Beginning, weights: Sequence[float]) -> None:
        """Add the sum over tokens of weight · ∇log p(token | those before)."""
        for place, weight in enumerate(weights):
            for token, probability in enumerate(self.probabilities[answer[:place]]):
                gradient[answer[:place], token] += weight * ((token == answer[place]) - probability)


class Growing:
    """A sampler of the continuations that a search asks for, from a table."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table, self.dice, self.key = table, random.Random(seed), 0

    def answer(self, before: Beginning, number: int) -> Beginning:
        """Sample so many tokens after `before`; return both."""
        for _ in range(number):
            row = self.table.probabilities[before]
            before = (*before, *self.dice.choices(range(len(row)), weights=row))
        return before

    def grow(self, how: Search) -> tuple[Group, list[Reward]]:
        """Return the attempts of one search with their rewards."""
        if how.method == "samples":
            answers = [self.answer((), self.table.length) for _ in range(SAMPLES)]
            group = Group(Task("?"), tuple(Attempt.of([0], Completion(own, self._logprobs(own), "", "stop", 0, 0)) for own in answers))
            return split_into_steps(group, [Reward(self.table.scores[own]) for own in answers], ONE_TOKEN, lambda tokens: "")
        tree = Tree(Task("?"), [0], lambda tokens: "".join(map(str, tokens)))
        outcomes = Outcomes(lambda pairs: [Reward(self.table.scores[tuple(map(int, text))]) for text, _ in pairs])
        by_steps = how.method != "tree"

        def expand(wanted: Sequence[tuple[Tree, Growth]]) -> list[list[Node]]:
            return [[self._added(tree, growth, by_steps) for _ in range(growth.width)] for tree, growth in wanted]

        going = likelihood if how.value == "likelihood" else Rollouts(expand, outcomes, how.rollouts)
        search([tree], how.rule(SAMPLES), expand, either(outcomes, going), most_tokens=lambda *_: 1)
        return group_of(tree, outcomes)

    def _added(self, tree: Tree, growth: Growth, by_steps: bool) -> Node:
        node, before = growth.node, growth.node.own_tokens
        answer = self.answer(before, self.table.length - len(before) if growth.to_end else 1)
        logprobs, self.key = self._logprobs(answer), self.key + 1
        if by_steps:
            for place in range(len(before), len(answer)):
                node = tree.add(node, answer[place : place + 1], logprobs[place : place + 1], self.key)
        else:
            node = tree.insert(node, answer[len(before) :], logprobs[len(before) :], self.key)
        node.finish = "stop" if len(answer) == self.table.length else None
        return node

    def _logprobs(self, answer: Beginning) -> tuple[float, ...]:
        return tuple(log(self.table.probabilities[answer[:place]][token]) for place, token in enumerate(answer))


def updates(table: Table, how: Search, rules: Sequence[str], num_trees: int, seed: int = 0) -> dict[str, list[Gradient]]:
    """Return what every tree's attempts add to one update of all trees, by advantage rule: the update is their mean."""
    growing = Growing(table, seed)
    groups, rewards = zip(*(growing.grow(how) for _ in range(num_trees)), strict=True)
    size = sum(len(group.attempts) for group in groups) / num_trees
    found: dict[str, list[Gradient]] = {}
    for rule in rules:
        found[rule] = []
        for group, row in zip(groups, token_advantages(groups, rewards, rule, pass_k=PASS_K), strict=True):
            gradient: Gradient = defaultdict(float)
            for attempt, weights in zip(group.attempts, row, strict=True):
                table.add(gradient, attempt.own_tokens, [weight / size for weight in weights])
            found[rule].append(gradient)
    return found


def mean_of(gradients: Sequence[Gradient]) -> Gradient:
    found: Gradient = defaultdict(float)
    for each in gradients:
        for place, value in each.items():
            found[place] += value / len(gradients)
    return found


def cosine(one: Gradient, other: Gradient) -> float:
    return sum(value * other.get(place, 0.0) for place, value in one.items()) / (_length(one) * _length(other))


def noise(gradients: Sequence[Gradient]) -> float:
    """Return the standard error of their mean, as a share of its length."""
    mean, number = mean_of(gradients), len(gradients)
    squares = sum((each.get(place, 0.0) - value) ** 2 for each in gradients for place, value in mean.items())
    return sqrt(squares / (number * (number - 1))) / _length(mean)


def measured(num_trees: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Measure each search and advantage rule: the cosine by seed, and the largest noise."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for seed in seeds:
        table = Table.randomly(seed)
        exact = {k: table.gradient(k) for k in (1, PASS_K)}
        for name, how in SEARCHES.items():
            for rule, found in updates(table, how, [*ADVANTAGES, *STEP_ADVANTAGES], num_trees, seed).items():
                row = rows.setdefault((name, rule), {"search": name, "advantage": rule, "cosines": [], "noise": 0.0})
                row["cosines"].append(cosine(mean_of(found), exact[PASS_K if rule == "pass_at_k" else 1]))
                row["noise"] = max(row["noise"], noise(found))
    return list(rows.values())


def table(found: Mapping[str, Any]) -> str:
    lines = [
        [row["search"], row["advantage"], " / ".join(f"{each:.3f}" for each in row["cosines"]), f"{row['noise']:.3f}"]
        for row in found["rows"]
    ]
    head = ["search", "advantage", f"cosine, of policies {', '.join(map(str, found['seeds']))}", "noise at most"]
    sizes = (
        f"{found['trees']:,} trees of each search on each policy: 3 tokens, answers of 4. `pass_at_k` beside the gradient of pass@{PASS_K}."
    )
    return markdown(head, lines, sizes)


def _softmax(logits: Sequence[float]) -> list[float]:
    weights = [exp(each) for each in logits]
    return [each / sum(weights) for each in weights]


def _length(gradient: Gradient) -> float:
    return sqrt(sum(value * value for value in gradient.values()))


def found_of(chosen: Namespace) -> dict[str, Any]:
    return {"trees": chosen.trees, "seeds": chosen.seeds, "rows": measured(chosen.trees, chosen.seeds)}


ARGUMENTS = {
    "trees": Argument(4000),
    "seeds": Argument([5, 6, 7]),
}
BENCHMARK = Benchmark("gradients", __doc__, ARGUMENTS, found_of, table)

if __name__ == "__main__":
    BENCHMARK.main()
