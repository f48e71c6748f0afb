import math
from dataclasses import replace

import pytest
from small_examples import credited as examples_of

from etude.learn.credit import CREDIT
from etude.learn.step_credit import STEP_CREDIT
from etude.learn.training_examples import token_advantages
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.beginnings import parted
from etude.rollouts.search.worth import Outcomes
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Tree
from etude.rollouts.tree_search import group_of
from etude.tasks.task import Task


def attempt(*steps):
    own = [token for step in steps for token in step]
    return Attempt(
        tokens=(1, *own),
        sources=(Source.GIVEN, *[Source.OWN] * len(own)),
        logprobs=(-1.0,) * len(own),
        text="",
        finish="stop",
        key=0,
        policy_version=0,
        step_lengths=tuple(map(len, steps)),
    )


@pytest.fixture
def worked():
    """Two attempts share a first step of two tokens; one of them is right, the third, of one step, is not."""
    group = Group(Task("?"), (attempt([5, 6], [7]), attempt([5, 6], [8, 9]), attempt([4])))
    return group, [
        Verdict(1.0, step_values=(1 / 3, 1 / 2, 1.0)),
        Verdict(0.0, step_values=(1 / 3, 1 / 2, 0.0)),
        Verdict(0.0, step_values=(1 / 3, 0.0)),
    ]


def credited(name, group, verdicts):
    """The weights of one group's tokens."""
    return STEP_CREDIT[name]([group], [verdicts])[0]


def test_a_difference_is_what_a_step_changed(worked):
    assert credited("difference", *worked) == [
        pytest.approx((1 / 6, 1 / 6, 1 / 2)),
        pytest.approx((1 / 6, 1 / 6, -1 / 2, -1 / 2)),
        pytest.approx((-1 / 3,)),
    ]


def test_a_baseline_takes_the_place_of_a_steps_own_value_before(worked):
    group, verdicts = worked
    verdicts[0] = replace(verdicts[0], step_baselines=(0.25, 0.0))
    assert credited("difference", group, verdicts)[0] == pytest.approx((1 / 4, 1 / 4, 1.0))


def grown(children, scores):
    """A tree of letters by what was drawn at each beginning, in order; answers end where nothing was drawn."""
    tree = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens)))
    nodes, outcomes = {"": tree.root}, Outcomes(lambda pairs: [Verdict(scores[text]) for text, _ in pairs])
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
    group, verdicts = group_of(tree, outcomes)
    assert [attempt.step_shares for attempt in group.attempts] == [(1 / 2,), *[(1 / 8, 1 / 8)] * 4]
    found = credited("difference", group, verdicts)
    shared = 5 / 8 * (1 / 4 - 1)
    assert found == [pytest.approx((5 / 2 * 3 / 4,)), *[pytest.approx((shared, 5 / 8 * -1 / 3))] * 3, pytest.approx((shared, 5 / 8))]
    assert sum(own[0] for own in found) == pytest.approx(0) == sum(own[1] for own in found[1:])


def test_a_search_with_more_answers_at_one_task_does_not_count_it_more():
    """The same tree twice, but for answers after "b": with four of them it has 5 answers, with one 2; each weighs 7/2."""
    trees = [grown({"": "ab", "b": letters}, {"a": 1.0} | {"b" + letter: 0.0 for letter in letters}) for letters in ("wxyz", "w")]
    groups, verdicts = zip(*(group_of(*each) for each in trees), strict=True)
    of_many, of_few = STEP_CREDIT["difference"](groups, verdicts)
    assert of_many[0] == of_few[0] == pytest.approx((7 / 2 / 2,))
    assert sum(own[0] for own in of_many[1:]) == pytest.approx(sum(own[0] for own in of_few[1:]))


def test_what_could_not_be_scored_leaves_its_share_to_the_others():
    """Two of the four draws at "b" have no score: they get no credit, and the others weigh as if they had not been drawn."""
    tree, outcomes = grown({"": "ab", "b": "wxyz"}, {"a": 1.0, "bw": None, "bx": 0.0, "by": None, "bz": 1.0})
    group, verdicts = group_of(tree, outcomes)
    found = credited("difference", group, verdicts)
    assert found[1] == found[3] == (0.0, 0.0)
    assert [found[2], found[4]] == [pytest.approx((3 / 4 * -1 / 2, -3 / 4)), pytest.approx((3 / 4 * -1 / 2, 3 / 4))]


def test_a_tree_counts_both_differences_and_shares_them_among_those_who_came_through(worked):
    """By hand: N/(N-1) = 3/2; the shared step 3/2 (1/6 + 1/6) / √2, then 3/2 (2/3 + 1/2) and 3/2 (-1/3 - 1/2), and 3/2 (-1/3 - 1/3)."""
    shared = 0.5 / math.sqrt(2)
    assert credited("tree", *worked) == [
        pytest.approx((shared, shared, 1.75)),
        pytest.approx((shared, shared, -1.25, -1.25)),
        pytest.approx((-1.0,)),
    ]


def test_attempts_of_one_step_get_the_credit_of_attempts():
    scores = [1.0, 0.0, None, 0.0, 1.0, 0.5]
    group = Group(Task("?"), tuple(attempt([number, number]) for number in range(6)))
    group, verdicts = parted(group, [Verdict(score) for score in scores], Steps("tokens", max_tokens=2), str)
    for name, factor in (("difference", 1), ("tree", 2)):
        expected = CREDIT["leave_one_out"]([scores])[0]
        assert [own[0] for own in credited(name, group, verdicts)] == pytest.approx([factor * weight for weight in expected])


@pytest.mark.parametrize("name", STEP_CREDIT)
def test_what_has_no_values_or_no_score_gets_no_credit(name, worked):
    group, verdicts = worked
    verdicts[2] = Verdict(None, step_values=(1 / 3, 0.0))
    found = credited(name, group, verdicts)
    assert found[2] == (0.0,) and any(found[1])
    verdicts[0] = Verdict(1.0)  # the scores are all that `tree` needs
    assert any(credited(name, group, verdicts)[0]) == (name == "tree")
    plain = Group(group.task, tuple(replace(each, step_lengths=()) for each in group.attempts))
    assert not any(map(any, credited(name, plain, verdicts)))


def test_tokens_enter_the_policy_stream_with_the_credit_of_their_step(worked):
    group, verdicts = worked
    (examples,) = examples_of([group], [verdicts], "difference")
    assert [example.policy for example in examples] == token_advantages([group], [verdicts], "difference")[0]
    flat = [Verdict(0.0, step_values=(0.0,) * len(verdict.step_values)) for verdict in verdicts]
    assert examples_of([group], [flat], "difference") == [[]]
