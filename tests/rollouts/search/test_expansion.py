"""Searches on a model: what they draw is the policy's, the same whatever is searched beside it, and computed once."""

import numpy as np
import pytest
import torch

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.rollouts.samples import sample_groups
from etude.rollouts.search.beam import beam
from etude.rollouts.search.best_of_n import best_of_n
from etude.rollouts.search.branching import branching
from etude.rollouts.search.expansion import Expansion
from etude.rollouts.search.growing import Growth, search
from etude.rollouts.search.mcts import mcts
from etude.rollouts.search.node_values import Rollouts, either
from etude.rollouts.search.vine import vine
from etude.rollouts.steps import Steps
from etude.tasks.task import Task

TASKS = [Task("one"), Task("two"), Task("three")]
PROMPTS = [list(range(10, 19)), [40, 41, 42], list(range(60, 81))]
HOW = {"max_new_tokens": 24, "sampling": Sampling(), "names": (5, "step")}
STEPS = Steps("tokens", max_tokens=7)

RULES = {
    "best_of_n": lambda tree: best_of_n(tree, width=4),
    "beam": lambda tree: beam(tree, beams=2, width=3),
    "mcts": lambda tree: mcts(tree, simulations=5, width=3, exploration=1.0, to_end=False),
    "mcts_to_end": lambda tree: mcts(tree, simulations=5, width=3, exploration=1.0, to_end=True),
    "vine": lambda tree: vine(tree, chains=2, width=2),
    "branching": lambda tree: branching(tree, chains=2, rounds=2, forks=2, width=2),
}


@pytest.fixture
def engine(model_of, tokenizer):
    return TransformersEngine(model_of("qwen3"), tokenizer)


def worth(pairs):
    """A number that depends on the tokens alone."""
    return [sum(node.own_tokens) % 11 / 10 for _, node in pairs]


def searched(engine, name, *, places=range(3), steps=STEPS, value=worth, **options):
    chosen = [TASKS[place] for place in places], [PROMPTS[place] for place in places]
    expansion = Expansion(engine, *chosen, steps=steps, places=list(places), **HOW)
    search(expansion.trees, RULES.get(name, name), expansion, value, most_tokens=expansion.most_tokens, **options)
    return expansion.trees


@pytest.mark.parametrize("name", RULES)
def test_a_tree_does_not_depend_on_what_is_searched_beside_it(engine, name):
    together = searched(engine, name)
    for place, tree in enumerate(together):
        (alone,) = searched(engine, name, places=[place])
        assert [(node.number, node.tokens, node.keys, node.visits) for node in alone.nodes()] == [
            (node.number, node.tokens, node.keys, node.visits) for node in tree.nodes()
        ]


@pytest.mark.parametrize("name", RULES)
def test_a_search_computes_its_prompts_and_what_it_draws(engine, name, monkeypatch):
    """Each node's tokens once, wherever it was cut out of a longer answer; what is drawn alike in several calls in each of them."""
    extend, drawn, computed = engine.extend, [], {tuple(prompt) for prompt in PROMPTS}

    def counted(prefixes, *given, **named):
        found = extend(prefixes, *given, **named)
        starts = [len(before.tokens) + (before.tokens in computed) for before in prefixes]
        drawn.append({after.tokens[:end] for start, after in zip(starts, found, strict=True) for end in range(start, len(after.tokens))})
        computed.update(drawn[-1])
        return found

    monkeypatch.setattr(engine, "extend", counted)
    trees = searched(engine, name)
    assert engine.computed_tokens == sum(map(len, PROMPTS)) + sum(map(len, drawn))
    owns = [(tree.prompt, node.own_tokens) for tree in trees for node in tree.nodes()[1:]]
    of_nodes = {(*prompt, *own[:end]) for prompt, own in owns for end in range(1, len(own))}
    assert set().union(*drawn) == of_nodes
    if name in ("beam", "mcts"):  # a node is grown in one call
        assert sum(map(len, drawn)) == len(of_nodes)
    assert sum(map(len, drawn)) <= sum(tree.sampled_tokens for tree in trees)


@pytest.mark.parametrize("name", RULES)
def test_log_probs_of_a_tree_are_those_of_the_model(engine, model_of, name):
    model = model_of("qwen3")
    for tree in searched(engine, name):
        for attempt in tree.group().attempts[:4]:
            with torch.inference_mode():
                logits_TV = model(input_ids=torch.tensor([attempt.tokens])).logits[0, len(tree.prompt) - 1 : -1]
            expected = logits_TV.log_softmax(-1)[torch.arange(len(attempt.own_tokens)), list(attempt.own_tokens)]
            assert attempt.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("best_of_n", 4),
        (lambda tree: beam(tree, beams=1, width=1), 1),
        (lambda tree: mcts(tree, simulations=9, width=1, exploration=1.0, to_end=False), 1),
        (lambda tree: mcts(tree, simulations=1, width=4, exploration=1.0, to_end=True), 4),
        (lambda tree: branching(tree, chains=4, rounds=0, forks=2, width=2), 4),
        (lambda tree: vine(tree, chains=4, width=0), 4),
    ],
)
def test_where_a_search_has_nothing_to_choose_it_is_plain_sampling(engine, name, width):
    groups = sample_groups(engine, TASKS, PROMPTS, num_samples=width, **HOW)
    for tree, group in zip(searched(engine, name), groups, strict=True):
        mine = {(attempt.tokens, attempt.key, attempt.text) for attempt in tree.group().attempts}
        assert mine == {(attempt.tokens, attempt.key, attempt.text) for attempt in group.attempts}


@pytest.mark.parametrize("steps", [Steps("line", max_tokens=9), Steps("sentence", max_tokens=9), Steps("tag", tags=["a"], max_tokens=9)])
def test_a_step_at_a_time_parts_answers_where_whole_ones_are_parted(engine, monkeypatch, steps):
    pieces = ("ab", ".", "\n", "</a>", "x", " ")
    monkeypatch.setattr(engine, "text_of", lambda tokens: "".join(pieces[token % 6] for token in tokens))
    monkeypatch.setattr(engine, "_decode", lambda tokens, shows_special=False: engine.text_of(tokens))
    whole = searched(engine, "best_of_n", steps=steps)
    single = searched(engine, lambda tree: beam(tree, beams=4, width=1), steps=steps)
    parted = 0
    for one, other in zip(single, whole, strict=True):
        (end,) = one.ends()
        same = next(each for each in other.ends() if each.own_tokens == end.own_tokens)
        assert [node.tokens for node in end.path] == [node.tokens for node in same.path]
        parted += any(len(node.tokens) < 9 for node in end.path[:-1])
    assert parted


def test_a_value_by_rollouts_is_the_mean_of_what_goes_on(engine):
    expansion = Expansion(engine, TASKS, PROMPTS, steps=STEPS, **HOW)
    rollouts = Rollouts(expansion, worth, 3)
    search(expansion.trees, RULES["beam"], expansion, either(worth, rollouts), most_tokens=expansion.most_tokens)
    checked = 0
    for tree in expansion.trees:
        for node in tree.nodes()[1:]:
            if not node.finish and node.visits and node.drawn == 3:
                ends = [end for end in node.below() if end.finish for _ in end.keys]
                assert node.value == pytest.approx(sum(end.value for end in ends) / 3)
                checked += 1
    assert checked


def test_continuations_of_a_node_follow_the_policy(engine, model_of):
    """2,000 continuations of one token, from a node in the middle of an answer, against the model's distribution (chi-square)."""
    expansion = Expansion(engine, TASKS[:1], PROMPTS[:1], steps=Steps("tokens", max_tokens=1), **HOW)
    (tree,) = expansion.trees
    draws = 2000

    def rule(tree):
        (end,) = yield [Growth(tree.root, 1, to_end=True)]
        yield [Growth(end.path[4], draws)]

    search([tree], rule, expansion, worth, most_tokens=expansion.most_tokens)
    node = next(node for node in tree.nodes() if len(node.path) == 5 and node.drawn > draws)
    with torch.inference_mode():
        expected = model_of("qwen3")(input_ids=torch.tensor([[*tree.prompt, *node.own_tokens]])).logits[0, -1].softmax(-1).double().numpy()
    counts = np.zeros(len(expected))
    for child in node.children:
        counts[child.tokens[0]] += len(child.keys)
    counts[node.children[0].tokens[0]] -= 1  # the first answer's own way, which chose this node
    common = expected * draws >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum()) * draws
    statistic = ((observed - wanted) ** 2 / wanted).sum()
    degrees = len(wanted) - 1
    assert statistic < degrees + 4 * np.sqrt(2 * degrees)


def test_a_budget_is_kept(engine):
    for tree in searched(engine, "beam", budget_tokens=60):
        assert tree.sampled_tokens <= 60 + 24 and tree.ends()
