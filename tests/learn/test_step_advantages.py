import math
from dataclasses import replace

import pytest
from small_examples import attempt_of as attempt
from small_examples import examples_of

from etude.learn.advantages import ADVANTAGES
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import token_advantages
from etude.rollouts.attempts import Group
from etude.rollouts.prefix_values import split_into_steps
from etude.rollouts.search.node_values import Outcomes
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Tree
from etude.rollouts.tree_search import group_of
from etude.tasks.reward import Reward
from etude.tasks.task import Task


@pytest.fixture
def worked():
    """Two attempts share a first step of two tokens; one of them is right, the third, of one step, is not."""
    group = Group(Task("?"), (attempt([5, 6], [7]), attempt([5, 6], [8, 9]), attempt([4])))
    return group, [
        Reward(1.0, step_values=(1 / 3, 1 / 2, 1.0)),
        Reward(0.0, step_values=(1 / 3, 1 / 2, 0.0)),
        Reward(0.0, step_values=(1 / 3, 0.0)),
    ]


def weights_of(name, group, rewards):
    """The weights of one group's tokens."""
    return STEP_ADVANTAGES[name]([group], [rewards])[0]


def test_vineppo_is_what_a_step_changed(worked):
    assert weights_of("vineppo", *worked) == [
        pytest.approx((1 / 6, 1 / 6, 1 / 2)),
        pytest.approx((1 / 6, 1 / 6, -1 / 2, -1 / 2)),
        pytest.approx((-1 / 3,)),
    ]


def test_a_baseline_takes_the_place_of_a_steps_own_value_before(worked):
    group, rewards = worked
    rewards[0] = replace(rewards[0], step_baselines=(0.25, 0.0))
    assert weights_of("vineppo", group, rewards)[0] == pytest.approx((1 / 4, 1 / 4, 1.0))


def grown(children, scores):
    """A tree of letters by what was drawn at each prefix, in order; answers end where nothing was drawn."""
    tree = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens)))
    nodes, outcomes = {"": tree.root}, Outcomes(lambda pairs: [Reward(scores[text]) for text, _ in pairs])
    for before, letters in children.items():
        for letter in letters:
            nodes[before + letter] = tree.add(nodes[before], [ord(letter)], [-1.0], key=0)
    for text in scores:
        nodes[text].finish, nodes[text].value = "stop", scores[text]
    outcomes([(tree, nodes[text]) for text in scores])
    return tree, outcomes


def test_a_place_counts_as_often_as_the_policy_comes_to_it_not_as_often_as_a_search_drew_there():
    """Of the root "a" and "b" are drawn, then four answers after "b": V(b) = 1/4, N = 5. By hand: the root's draws have baselines 1/4 and 1
    and weights 5/2, those of "b" have weight 5/8 each, and baselines 1/3 or, of the right one, 0.
    """
    tree, outcomes = grown({"": "ab", "b": "wxyz"}, {"a": 1.0, "bw": 0.0, "bx": 0.0, "by": 0.0, "bz": 1.0})
    group, rewards = group_of(tree, outcomes)
    assert [attempt.step_shares for attempt in group.attempts] == [(1 / 2,), *[(1 / 8, 1 / 8)] * 4]
    found = weights_of("vineppo", group, rewards)
    shared = 5 / 8 * (1 / 4 - 1)
    assert found == [pytest.approx((5 / 2 * 3 / 4,)), *[pytest.approx((shared, 5 / 8 * -1 / 3))] * 3, pytest.approx((shared, 5 / 8))]
    assert sum(own[0] for own in found) == pytest.approx(0) == sum(own[1] for own in found[1:])


def test_a_search_with_more_answers_at_one_task_does_not_count_it_more():
    """The same tree twice, but for answers after "b": with four of them it has 5 answers, with one 2; each weighs 7/2."""
    trees = [grown({"": "ab", "b": letters}, {"a": 1.0} | {"b" + letter: 0.0 for letter in letters}) for letters in ("wxyz", "w")]
    groups, rewards = zip(*(group_of(*each) for each in trees), strict=True)
    of_many, of_few = STEP_ADVANTAGES["vineppo"](groups, rewards)
    assert of_many[0] == of_few[0] == pytest.approx((7 / 2 / 2,))
    assert sum(own[0] for own in of_many[1:]) == pytest.approx(sum(own[0] for own in of_few[1:]))


def test_what_could_not_be_scored_leaves_its_share_to_the_others():
    """Two of the four draws at "b" have no score: they get no advantage, and the others weigh as if they had not been drawn."""
    tree, outcomes = grown({"": "ab", "b": "wxyz"}, {"a": 1.0, "bw": None, "bx": 0.0, "by": None, "bz": 1.0})
    group, rewards = group_of(tree, outcomes)
    found = weights_of("vineppo", group, rewards)
    assert found[1] == found[3] == (0.0, 0.0)
    assert [found[2], found[4]] == [pytest.approx((3 / 4 * -1 / 2, -3 / 4)), pytest.approx((3 / 4 * -1 / 2, 3 / 4))]


def test_treerl_counts_both_differences_and_shares_them_among_those_who_came_through(worked):
    """By hand: N/(N-1) = 3/2; the shared step 3/2 (1/6 + 1/6) / √2, then 3/2 (2/3 + 1/2) and 3/2 (-1/3 - 1/2), and 3/2 (-1/3 - 1/3)."""
    shared = 0.5 / math.sqrt(2)
    assert weights_of("treerl", *worked) == [
        pytest.approx((shared, shared, 1.75)),
        pytest.approx((shared, shared, -1.25, -1.25)),
        pytest.approx((-1.0,)),
    ]


def test_attempts_of_one_step_get_the_advantages_of_attempts():
    scores = [1.0, 0.0, None, 0.0, 1.0, 0.5]
    group = Group(Task("?"), tuple(attempt([number, number]) for number in range(6)))
    group, rewards = split_into_steps(group, [Reward(score) for score in scores], Steps("tokens", max_tokens=2), str)
    for name, factor in (("vineppo", 1), ("treerl", 2)):
        expected = ADVANTAGES["rloo"]([scores])[0]
        assert [own[0] for own in weights_of(name, group, rewards)] == pytest.approx([factor * weight for weight in expected])


@pytest.mark.parametrize("name", STEP_ADVANTAGES)
def test_what_has_no_values_or_no_score_gets_no_advantage(name, worked):
    group, rewards = worked
    rewards[2] = Reward(None, step_values=(1 / 3, 0.0))
    found = weights_of(name, group, rewards)
    assert found[2] == (0.0,) and any(found[1])
    rewards[0] = Reward(1.0)  # the scores are all that `treerl` needs
    assert any(weights_of(name, group, rewards)[0]) == (name == "treerl")
    plain = Group(group.task, tuple(replace(each, step_lengths=()) for each in group.attempts))
    assert not any(map(any, weights_of(name, plain, rewards)))


def test_tokens_enter_the_policy_stream_with_the_advantage_of_their_step(worked):
    group, rewards = worked
    (examples,) = examples_of([group], [rewards], "vineppo")
    assert [example.policy for example in examples] == token_advantages([group], [rewards], "vineppo")[0]
    flat = [Reward(0.0, step_values=(0.0,) * len(reward.step_values)) for reward in rewards]
    assert examples_of([group], [flat], "vineppo") == [[]]
