"""Searches on trees that are worked by hand: steps are letters, what follows is written down."""

import math
from collections import defaultdict

import pytest

from etude.rollouts.search.beam import beam
from etude.rollouts.search.best_of_n import best_of_n
from etude.rollouts.search.branching import branching
from etude.rollouts.search.growing import search
from etude.rollouts.search.mcts import mcts
from etude.rollouts.search.vine import vine
from etude.rollouts.tree import Tree
from etude.tasks.task import Task


class Script:
    """Draws the next of the letters that are written down for a text; answers end with a full stop."""

    def __init__(self, follow, values=(), surprise=()):
        self.follow, self.values, self.surprise = follow, dict(values), dict(surprise)
        self.tree = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens)))
        self.asked = []
        self.drawn = defaultdict(int)

    def expand(self, wanted):
        found = []
        for tree, growth in wanted:
            self.asked.append((tree.text_of(growth.node), growth.width, growth.to_end))
            found.append([self.continued(tree, growth) for _ in range(growth.width)])
        return found

    def continued(self, tree, growth):
        node = growth.node
        while True:
            before = tree.text_of(node)
            letters = self.follow[before][self.drawn[before] % len(self.follow[before])]
            self.drawn[before] += 1
            tree.sampled_tokens += len(letters)
            logprobs = [-self.surprise.get(before + letters[: place + 1], 0.1) for place in range(len(letters))]
            node = tree.add(node, [ord(c) for c in letters], logprobs, key=0)
            if letters.endswith("."):
                node.finish = "stop"
            if node.finish or not growth.to_end:
                return node

    def value(self, pairs):
        return [self.values.get(tree.text_of(node), 0.0) for tree, node in pairs]

    def search(self, rule, **options):
        search([self.tree], rule, self.expand, self.value, most_tokens=lambda tree, growth: 2, **options)
        return {tree_text: node for node in self.tree.nodes() if (tree_text := self.tree.text_of(node))}


def test_best_of_n_draws_whole_answers_and_the_best_is_found():
    script = Script({"": ["a", "b"], "a": ["."], "b": ["."]}, {"b.": 1.0})
    script.search(lambda tree: best_of_n(tree, width=3))
    assert script.asked == [("", 3, True)]
    assert script.tree.text_of(script.tree.best()) == "b." and script.tree.root.mean == pytest.approx(1 / 3)


def test_beam_goes_on_with_the_best_steps_and_an_answer_that_ended_keeps_its_place():
    follow = {"": ["a", "b"], "a": ["c", "."], "b": ["d", "e"], "ac": [".", "x"], "bd": ["."], "be": ["."]}
    values = {"a": 0.6, "b": 0.5, "ac": 0.3, "a.": 0.9, "bd": 0.8, "be": 0.2, "bd.": 0.7}
    script = Script(follow, values)
    nodes = script.search(lambda tree: beam(tree, beams=2, width=2))
    assert script.asked == [("", 2, False), ("a", 2, False), ("b", 2, False), ("bd", 2, False)]
    assert "ac." not in nodes and script.tree.text_of(script.tree.best()) == "a."
    assert {node: nodes[node].finish for node in ("a.", "bd.")} == {"a.": "stop", "bd.": "stop"}


def test_mcts_descends_by_puct():
    """Root 4 visits: after two simulations a has mean 1/2 and 2 visits, b mean 1 and 2 visits; c = 1, P = 1/2."""
    follow = {"": ["a", "b"], "a": [".", ","], "b": [".", ","], "a,": ["."], "b,": ["."]}
    script = Script(follow, {"a": 0.6, "b": 0.5, "a.": 0.2, "a,": 0.3, "b.": 1.0})
    nodes = script.search(lambda tree: mcts(tree, simulations=3, width=2, exploration=1.0, to_end=False))
    # 1: a and b are drawn (0.6, 0.5). 2: puct(a) = 0.6 + √2/4 > puct(b), so a's steps (0.2, 0.3): its mean is 1.1/3.
    # 3: puct(a) = 1.1/3 + √4/8 = 0.617 < puct(b) = 0.5 + √4/4 = 1.0, so b's steps.
    assert script.asked == [("", 2, False), ("a", 2, False), ("b", 2, False)]
    assert (nodes["a"].visits, nodes["a"].total) == (3, pytest.approx(1.1))
    assert (nodes["b"].visits, nodes["b"].total, script.tree.root.visits) == (3, 1.5, 6)


def test_the_formula_of_puct_decides_between_a_better_and_a_rarer_step():
    follow = {"": ["a", "a", "a", "b"], "a": ["."] * 4, "b": ["."] * 4}
    for exploration, chosen in ((0.0, "a"), (0.2, "a"), (2.0, "a"), (-1.0, "b")):
        script = Script(follow, {"a": 0.5, "b": 0.4, "a.": 0.5, "b.": 0.4})
        script.search(lambda tree, c=exploration: mcts(tree, simulations=2, width=4, exploration=c, to_end=False))
        a, b = (value + exploration * prior * math.sqrt(4) / (1 + n) for value, prior, n in ((0.5, 3 / 4, 3), (0.4, 1 / 4, 1)))
        assert ("a" if a > b else "b") == chosen == script.asked[1][0]


def test_the_bonus_of_puct_grows_with_the_root_of_visits():
    """Behind 16 visits of the root, 9 of a and 7 of b: 0.5 + c/2 · 4/10 against 0.4 + c/2 · 4/8, which is more from c = 2 on."""
    for exploration, chosen in ((1.9, "a"), (2.1, "b")):
        tree = Script({}).tree
        a, b = (tree.add(tree.root, [ord(letter)], [-0.1], key=0) for letter in "ab")
        for node, value, visits in ((a, 0.5, 9), (b, 0.4, 7)):
            node.value = value
            for _ in range(visits):
                tree.back_up(node)
        (growth,) = next(mcts(tree, simulations=1, width=2, exploration=exploration, to_end=False))
        assert tree.text_of(growth.node) == chosen


def test_rollouts_of_mcts_stay_in_the_tree_and_their_steps_are_widened():
    follow = {"": ["a", "b"], "a": ["c", "d"], "b": ["c"], "ac": ["."], "ad": ["."], "bc": ["."]}
    script = Script(follow, {"ac.": 1.0, "ad.": 1.0})
    nodes = script.search(lambda tree: mcts(tree, simulations=2, width=2, exploration=0.0, to_end=True))
    assert script.asked == [("", 2, True), ("a", 1, True)]  # a has had one continuation already
    assert (nodes["a"].visits, nodes["a"].mean, nodes["b"].mean) == (2, 1.0, 0.0)


def test_mcts_passes_over_what_has_all_ended():
    """Puct prefers a, whose mean is 1, at every descent; behind it nothing is left to draw after the second."""
    follow = {"": ["a", "b"], "a": [".", ","], "a,": [".", "."], "b": [".", "x"], "bx": ["."]}
    script = Script(follow, {"a": 1.0, "b": 0.1, "a.": 1.0, "a,": 1.0, "a,.": 1.0, "b.": 0.1, "bx": 0.1, "bx.": 0.1})
    script.search(lambda tree: mcts(tree, simulations=9, width=2, exploration=0.0, to_end=False))
    assert [node for node, _, _ in script.asked] == ["", "a", "a,", "b", "bx"]  # and not four times more


def test_a_tree_branches_right_before_its_most_surprising_tokens():
    follow = {"": ["abcd.", "xy."], "ab": ["C."], "abc": ["D."], "x": ["Y."]}
    surprise = {"abc": 3.0, "abcd": 2.0, "xy": 1.5, "abC": 9.0}
    script = Script(follow, {"abC.": 1.0}, surprise)
    nodes = script.search(lambda tree: branching(tree, chains=2, rounds=1, forks=2, width=2))
    assert script.asked[0] == ("", 2, True)
    assert sorted(script.asked[1:3]) == [("ab", 2, True), ("abc", 2, True)]  # tokens c and d
    assert script.asked[3][0] == "x" and len(script.asked) == 5
    assert nodes["ab"].mean == pytest.approx(2 / 5)  # abcd. once, abC. twice, abcD. twice
    assert [attempt.text for attempt in script.tree.group().attempts].count("abC.") == 2


def test_a_tree_branches_a_place_as_often_as_answers_were_surprising_there():
    script = Script({"": ["ab.", "xy.", "u.", "v."]}, surprise={"a": 3.0, "x": 2.0})
    script.search(lambda tree: branching(tree, chains=2, rounds=1, forks=1, width=2))
    assert script.asked == [("", 2, True), ("", 4, True)]  # both at their first token
    follow = {"": ["a"], "a": ["b"], "ab": [".", "c", "d"], "abc": ["."], "abd": ["."]}
    script = Script(follow, surprise={"ab.": 3.0, "abc": 2.0})  # two alternatives behind ab
    script.search(lambda tree: branching(tree, chains=2, rounds=1, forks=1, width=1))
    assert script.asked[1:] == [("ab", 2, True)]


def test_a_second_round_branches_what_the_first_one_drew_too():
    follow = {"": ["a"], "a": ["b", "c"], "ab": ["."], "ac": ["d."], "acd": ["e."]}
    script = Script(follow, surprise={"ab": 3.0, "acd.": 4.0})
    script.search(lambda tree: branching(tree, chains=1, rounds=2, forks=1, width=1))
    assert script.asked == [("", 1, True), ("a", 1, True), ("acd", 1, True)]


def test_a_tree_without_rounds_is_best_of_n():
    script = Script({"": ["abcd.", "xy."]})
    script.search(lambda tree: branching(tree, chains=2, rounds=0, forks=2, width=2))
    assert script.asked == [("", 2, True)]


def test_a_vine_draws_more_answers_from_behind_every_step_but_the_last():
    follow = {"": ["a", "b"], "a": ["c", "."], "ac": ["."], "b": ["."]}
    script = Script(follow, {"a.": 1.0, "b.": 1.0})
    nodes = script.search(lambda tree: vine(tree, chains=2, width=2))
    assert script.asked == [("", 2, True), ("a", 2, True), ("ac", 2, True), ("b", 2, True)]
    # from a came c (the first answer's way), the end and c again: 1/3, however many more are drawn from behind c; from b the end alone
    expected = script.tree.expected()
    assert [expected[nodes[text]] for text in ("a", "ac", "b")] == [pytest.approx(1 / 3), 0.0, 1.0]
    assert expected[script.tree.root] == pytest.approx((1 / 3 + 1) / 2)
    assert [attempt.text for attempt in script.tree.group().attempts] == ["ac."] * 4 + ["a."] + ["b."] * 3


def test_math_shepherds_estimates_of_a_step_by_three_answers_of_which_two_are_right():
    """Its figure: of N = 3 completions from a step two reach the answer, so the soft estimate is 2/3 and the hard one 1."""
    follow = {"": ["a"], "a": ["b", "c", "d"], "ab": ["."], "ac": ["."], "ad": ["."]}
    script = Script(follow, {"ab.": 1.0, "ac.": 1.0})
    nodes = script.search(lambda tree: vine(tree, chains=1, width=2))
    soft, hard = script.tree.expected(), script.tree.expected(hard=True)
    ones = [nodes[text] for text in ("a", "ab", "ad")]
    assert [soft[node] for node in ones] == [pytest.approx(2 / 3), 1.0, 0.0] and [hard[node] for node in ones] == [1.0, 1.0, 0.0]
    assert hard[script.tree.root] == 1.0 and hard[nodes["ad."]] == 0.0


def test_no_growth_begins_that_could_exceed_the_budget():
    script = Script({"": ["a", "b"], "a": ["."], "b": ["."]})
    script.search(lambda tree: best_of_n(tree, width=9), budget_tokens=7)
    assert script.asked == [("", 3, True)] and script.tree.sampled_tokens <= 7


def test_a_search_that_found_no_end_gets_one_answer_from_its_best_beginning():
    follow = {"": ["a", "b"], "a": ["c"], "b": ["c"], "ac": ["."], "bc": ["."]}
    script = Script(follow, {"b": 0.5, "bc.": 0.7})
    script.search(lambda tree: beam(tree, beams=2, width=2), budget_tokens=4)
    assert script.asked == [("", 2, False), ("b", 1, False), ("bc", 1, True)]
    assert script.tree.text_of(script.tree.best()) == "bc." and script.tree.best().value == 0.7


def test_unscored_answers_lead_nowhere():
    script = Script({"": ["a.", "b."]})
    script.value = lambda pairs: [None for _ in pairs]
    script.search(lambda tree: mcts(tree, simulations=4, width=2, exploration=1.0, to_end=True))
    assert script.asked == [("", 2, True)] and script.tree.root.visits == 0 and script.tree.best() is None


def test_the_range_of_rewards_does_not_change_what_mcts_draws():
    """Two answers that end at once are worth 0 and 1, so that these are the least and the greatest value from the beginning on."""
    follow = {"": ["a", "b", "x.", "z."], "a": [".", ",", ".", ","], "b": [".", ",", ".", ","], "a,": ["."], "b,": ["."]}
    values = {"a": 0.6, "b": 0.5, "x.": 1.0, "z.": 0.0, "a.": 0.2, "a,": 0.3, "b.": 1.0, "b,": 0.1, "a,.": 0.0, "b,.": 0.0}
    asked = []
    for scale, shift in ((1, 0), (35, -5), (0.01, 7)):
        moved = {name: scale * value + shift for name, value in values.items()}
        script = Script(follow, moved)
        script.search(lambda tree: mcts(tree, simulations=4, width=4, exploration=1.0, to_end=False))
        asked.append(script.asked)
    assert len(asked[0]) > 2 and asked[1] == asked[0]


def test_a_beam_goes_on_with_the_best_of_negative_values_and_leaves_what_is_unknown():
    follow = {"": ["a", "b", "c"], "a": ["."], "b": ["."], "c": ["."]}
    script = Script(follow, {"a": -4.0, "b": -2.0, "c": None, "b.": -1.0})
    nodes = script.search(lambda tree: beam(tree, beams=1, width=3))
    assert [node for node, _, _ in script.asked] == ["", "b"] and "a." not in nodes and "c." not in nodes
