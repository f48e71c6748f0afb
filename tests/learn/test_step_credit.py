import math
from dataclasses import replace

import pytest

from etude.explore.attempts import Attempt, Group, Source
from etude.explore.tree import Tree
from etude.feedback.verdict import Verdict
from etude.learn.credit import CREDIT
from etude.learn.lessons import by_credit, token_weights
from etude.learn.step_credit import STEP_CREDIT
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


def test_a_difference_is_what_a_step_changed(worked):
    assert STEP_CREDIT["difference"](*worked) == [
        pytest.approx((1 / 6, 1 / 6, 1 / 2)),
        pytest.approx((1 / 6, 1 / 6, -1 / 2, -1 / 2)),
        pytest.approx((-1 / 3,)),
    ]


def test_a_beginning_that_a_search_went_on_from_is_learned_from_as_often_as_it_was_drawn():
    """Of the root "a" and "b" are drawn, then three more answers behind "b": V(b) = 1/4, V = 5/8, and "b" does not lose 3/8 four times."""
    tree = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens)))
    (a, b), scores = (tree.add(tree.root, [ord(letter)], [-1.0], key) for key, letter in enumerate("ab")), {"a": 1.0}
    a.finish = "stop"
    for key, letter in enumerate("wxyz", start=1):
        tree.add(b, [ord(letter)], [-1.0], key).finish = "stop"
        scores["b" + letter] = float(letter == "z")
    for end in tree.ends():
        end.value = scores[tree.text_of(end)]
    values = tree.expected()
    verdicts = [Verdict(end.value, step_values=tuple(values[each] for each in (tree.root, *end.path))) for end in tree.ends()]
    found = STEP_CREDIT["difference"](tree.group(), verdicts)
    assert found == [pytest.approx((3 / 8,)), *[pytest.approx((-3 / 32, -1 / 4))] * 3, pytest.approx((-3 / 32, 3 / 4))]
    assert sum(own[0] for own in found) == pytest.approx(0) == sum(own[1] for own in found[1:])


def test_a_tree_counts_both_differences_and_shares_them_among_those_who_came_through(worked):
    """By hand: N/(N-1) = 3/2; the shared step 3/2 (1/6 + 1/6) / √2, then 3/2 (2/3 + 1/2) and 3/2 (-1/3 - 1/2), and 3/2 (-1/3 - 1/3)."""
    shared = 0.5 / math.sqrt(2)
    assert STEP_CREDIT["tree"](*worked) == [
        pytest.approx((shared, shared, 1.75)),
        pytest.approx((shared, shared, -1.25, -1.25)),
        pytest.approx((-1.0,)),
    ]


def test_attempts_of_one_step_get_the_credit_of_attempts():
    scores = [1.0, 0.0, None, 0.0, 1.0, 0.5]
    group = Group(Task("?"), tuple(attempt([number, number]) for number in range(6)))
    verdicts = [Verdict(score, step_values=() if score is None else (0.5, score)) for score in scores]
    for name, plain, factor in (("difference", "centred", 1), ("tree", "leave_one_out", 2)):
        expected = CREDIT[plain]([scores])[0]
        assert [own[0] for own in STEP_CREDIT[name](group, verdicts)] == pytest.approx([factor * weight for weight in expected])


@pytest.mark.parametrize("name", STEP_CREDIT)
def test_what_has_no_values_or_no_score_gets_no_credit(name, worked):
    group, verdicts = worked
    verdicts[2] = Verdict(None, step_values=(1 / 3, 0.0))
    found = STEP_CREDIT[name](group, verdicts)
    assert found[2] == (0.0,) and any(found[1])
    verdicts[0] = Verdict(1.0)  # the scores are all that `tree` needs
    assert any(STEP_CREDIT[name](group, verdicts)[0]) == (name == "tree")
    plain = Group(group.task, tuple(replace(each, step_lengths=()) for each in group.attempts))
    assert not any(map(any, STEP_CREDIT[name](plain, verdicts)))


def test_tokens_enter_the_policy_stream_with_the_credit_of_their_step(worked):
    group, verdicts = worked
    (examples,) = by_credit([group], [verdicts], credit="difference")
    assert [example.policy for example in examples] == token_weights([group], [verdicts], "difference")[0]
    flat = [Verdict(0.0, step_values=(0.0,) * len(verdict.step_values)) for verdict in verdicts]
    assert by_credit([group], [flat], credit="difference") == [[]]
