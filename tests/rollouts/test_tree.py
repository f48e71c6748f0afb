from fractions import Fraction

import pytest

from etude.rollouts.attempts import Source
from etude.rollouts.tree import Tree
from etude.tasks.task import Task


@pytest.fixture
def tree():
    """Two answers, "ab|cd|e" and "ab|x", the second drawn twice; tokens are letters."""
    tree = Tree(Task("?"), [1, 2], lambda tokens: "".join(map(chr, tokens)), policy_version=4)
    first = added(tree, tree.root, "ab", 10)
    end = added(tree, added(tree, first, "cd", 10), "e", 10)
    for key in (11, 12):
        assert added(tree, tree.root, "ab", key) is first
        other = added(tree, first, "x", key)
    end.finish, end.value = "stop", 1.0
    other.finish, other.value = "length", 0.0
    for node in (end, other, other):
        tree.back_up(node)
    return tree


def added(tree, parent, text, key):
    return tree.add(parent, [ord(c) for c in text], [-ord(c) / 100 for c in text], key)


def test_answers_that_begin_alike_share_nodes_and_each_visit_counts(tree):
    rows = [(row["number"], row["parent"], row["text"], row["drawn"], row["visits"], row["mean"]) for row in tree.to_json()]
    assert rows == [
        (0, None, "", 0, 3, pytest.approx(1 / 3)),
        (1, 0, "ab", 3, 3, pytest.approx(1 / 3)),
        (2, 1, "cd", 1, 1, 1.0),
        (3, 2, "e", 1, 1, 1.0),
        (4, 1, "x", 2, 2, 0.0),
    ]
    assert (tree.root.drawn, tree.root.children[0].drawn) == (3, 3)
    assert tree.best().number == 3
    unknown = added(tree, tree.root, "q", 13)
    unknown.finish = "stop"
    tree.back_up(unknown)
    assert (unknown.visits, tree.root.visits, unknown.mean) == (0, 3, None)
    assert tree.best().number == 3


def test_every_answer_is_an_attempt_as_often_as_it_was_drawn(tree):
    attempts = tree.group().attempts
    assert [(attempt.text, attempt.key, attempt.finish) for attempt in attempts] == [
        ("abcde", 10, "stop"),
        ("abx", 11, "length"),
        ("abx", 12, "length"),
    ]
    assert attempts[0].tokens == (1, 2, *map(ord, "abcde")) and attempts[0].sources.count(Source.OWN) == 5
    assert attempts[1].logprobs == (-0.97, -0.98, -1.2) and attempts[1].policy_version == 4


def test_a_node_is_parted_and_keeps_what_is_behind_it(tree):
    node = tree.nodes()[2]
    before = [(attempt.tokens, attempt.logprobs) for attempt in tree.group().attempts]
    upper = tree.split(node, 1)
    assert [tree.text_of(each) for each in (upper, node)] == ["abc", "abcd"]
    assert (upper.number, upper.children, node.parent, upper.parent) == (5, [node], upper, tree.root.children[0])
    assert (upper.visits, upper.total, upper.drawn, upper.keys) == (1, 1.0, 1, [10])
    assert [(attempt.tokens, attempt.logprobs) for attempt in tree.group().attempts] == before
    for place in (0, 1):
        with pytest.raises(ValueError, match="can't be parted"):
            tree.split(upper, place)


def test_answers_in_common_become_nodes_where_others_leave_them():
    tree = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens)))
    for key, text in enumerate(["abcd.", "abxy.", "abcd.", "abcz.", "q."]):
        end = tree.insert(tree.root, [ord(c) for c in text], [-ord(c) / 100 for c in text], key)
        end.finish, end.value = "stop", float(text == "abcd.")
    rows = [(tree.text_of(node), node.keys, node.drawn) for node in tree.nodes()]
    assert rows == [
        ("", [], 5),
        ("ab", [0, 1, 2, 3], 4),
        ("abc", [0, 2, 3], 3),
        ("abcd.", [0, 2], 0),
        ("abcz.", [3], 0),
        ("abxy.", [1], 0),
        ("q.", [4], 0),
    ]
    assert [attempt.logprobs for attempt in tree.group().attempts if attempt.key == 3] == [tuple(-ord(c) / 100 for c in "abcz.")]
    assert [tree.expected()[node] for node in tree.nodes()] == pytest.approx([2 / 5, 1 / 2, 2 / 3, 1, 0, 0, 0])


def test_an_answer_stands_for_as_much_as_the_policy_comes_to_it_however_often_it_was_drawn(tree):
    assert {tree.text_of(node): share for node, share in tree.shares().items()} == {"abcde": Fraction(1, 3), "abx": Fraction(2, 3)}
    first, longer = tree.nodes()[1:3]
    for key in (20, 21, 22):  # a search that goes on from "abcd" three times
        added(tree, longer, "y" if key == 22 else "z", key).finish = "stop"
    added(tree, first, "q", 23)  # unfinished: nobody's share
    expected = {"abcde": Fraction(1, 16), "abcdz": Fraction(2, 16), "abcdy": Fraction(1, 16), "abx": Fraction(2, 4)}
    assert {tree.text_of(node): share for node, share in tree.shares().items()} == expected


def test_hard_values_ask_whether_an_answer_is_right_whatever_the_range_of_rewards(tree):
    end, other = tree.ends()
    end.value, end.is_right = 20.0, True
    other.value, other.is_right = 14.0, False
    soft, hard = tree.expected(), tree.expected(hard=True)
    assert [soft[node] for node in tree.nodes()] == [16.0, 16.0, 20.0, 20.0, 14.0]
    assert [hard[node] for node in tree.nodes()] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert [row["right"] for row in tree.to_json()] == [None, None, None, True, False]


def test_values_outside_of_0_and_1_are_a_share_of_the_way_between_those_of_the_tree(tree):
    assert [tree.as_share(value) for value in (0.0, 1 / 3, 1.0)] == [0.0, 1 / 3, 1.0]  # as they are
    (end, *_) = tree.ends()
    for value in (-5.0, 30.0):
        end.value = value
        tree.back_up(end)
    assert [tree.as_share(value) for value in (-5.0, 12.5, 30.0)] == [0.0, 0.5, 1.0]
