"""The advantages of the turns of revised attempts, worked out by hand."""

import pytest
from small_examples import anchored, examples_of

from etude.learn.advantages import ADVANTAGES
from etude.learn.batches import pack
from etude.learn.training_examples import imitation_examples, token_advantages
from etude.learn.turn_advantages import returns, turn_advantages, turns_with_signal
from etude.rollouts.attempts import Attempt, Group, Source
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def attempt(*turns, prompt=(1, 2), told=(9,)):
    """Each turn a list of own tokens, with `told` between two."""
    tokens, sources = list(prompt), [Source.GIVEN] * len(prompt)
    for number, own in enumerate(turns):
        tokens += [*(told if number else ()), *own]
        sources += [Source.FEEDBACK] * (len(told) if number else 0) + [Source.OWN] * len(own)
    count = sources.count(Source.OWN)
    logprobs = tuple(-0.1 * (place + 1) for place in range(count))
    return Attempt(tuple(tokens), tuple(sources), logprobs, "", "stop", 0, 0, turns=len(turns))


def reward(*scores):
    return Reward(scores[-1], turn_scores=scores if len(scores) > 1 else ())


def test_returns_are_discounted_improvements():
    """r = 0.25, 0.5, -0.75 of the scores 0.25, 0.75, 0; by 0.5: 0.25 + 0.5 · 0.5 - 0.25 · 0.75, 0.5 - 0.5 · 0.75, -0.75."""
    assert returns([0.25, 0.75, 0.0], 1.0) == [0.0, -0.25, -0.75]
    assert returns([0.25, 0.75, 0.0], 0.0) == [0.25, 0.5, -0.75]
    assert returns([0.25, 0.75, 0.0], 0.5) == pytest.approx([0.3125, 0.125, -0.75])


@pytest.mark.parametrize(
    ("scores", "discount", "expected"),
    [
        ([None, 1.0], 1.0, [1.0, None]),  # the first turn is rewarded for the end, the second lacks what it improved on
        ([None, 1.0], 0.0, [None, None]),
        ([0.0, None], 1.0, [None, None]),
        ([0.0, None], 0.0, [0.0, None]),
        ([0.0, None, 1.0], 1.0, [1.0, 1.0, None]),
        ([0.0, None, 1.0], 0.5, [None, None, None]),
        ([None], 1.0, [None]),
    ],
)
def test_a_turn_that_lacks_a_score_that_counts_has_no_return(scores, discount, expected):
    assert returns(scores, discount) == expected


def test_advantages_compare_each_turn_with_the_same_turn_of_others():
    """Three attempts: right at once, put right, put wrong by half. Discount 1: first turns 1, 1, 0; second ones 1 and -0.5."""
    group = [[1.0], [0.0, 1.0], [0.5, 0.0]]
    assert turn_advantages([group], ADVANTAGES["dr_grpo"], 1.0) == [
        [pytest.approx([1 / 3]), pytest.approx([1 / 3, 0.75]), pytest.approx([-2 / 3, -0.75])]
    ]
    # discount 0: first turns 1, 0, 0.5
    assert turn_advantages([group], ADVANTAGES["dr_grpo"], 0.0) == [
        [pytest.approx([0.5]), pytest.approx([-0.5, 0.75]), pytest.approx([0, -0.75])]
    ]


def test_a_turn_that_one_attempt_alone_has_gets_no_advantage():
    for rule in ADVANTAGES.values():
        (found,) = turn_advantages([[[1.0], [0.0, 1.0], [0.0]]], rule, 1.0)
        assert found[1][1] == 0.0 and found[2][0] < 0


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_attempts_of_one_turn_have_exactly_the_advantages_of_attempts(name, discount):
    groups = [[1.0, 0.0, None, 1 / 3], [0.0, 0.0], [0.7, 0.1, 0.1]]
    plain = ADVANTAGES[name](groups)
    found = turn_advantages([[[score] for score in group] for group in groups], ADVANTAGES[name], discount)
    assert [[turns[0] for turns in group] for group in found] == plain
    attempts = [Group(Task("?"), tuple(attempt([5, 6 + i]) for i in range(len(group)))) for group in groups]
    weights = token_advantages(attempts, [[Reward(score) for score in group] for group in groups], name, discount)
    assert weights == [[(advantage, advantage) for advantage in group] for group in plain]


def test_a_group_has_signal_where_one_of_its_turns_has():
    assert turns_with_signal([[0.0, 1.0], [0.0, 0.0]], 0.0) == [False, True]
    assert turns_with_signal([[0.0, 1.0], [0.0, 0.0]], 1.0) == [True, True]
    assert turns_with_signal([[1.0], [0.0, 1.0], [0.0, 1.0]], 1.0) == [False, False]
    assert turns_with_signal([[1.0], [0.0, 1.0], [0.0, 1.0]], 0.0) == [True, False]


def test_each_turn_is_an_example_behind_all_that_came_before():
    group = Group(Task("?"), (attempt([5, 6]), attempt([5, 7], [8]), attempt([4], [3, 3])))
    rewards = [reward(1.0), reward(0.0, 1.0), reward(0.5, 0.0)]
    (examples,) = examples_of([group], [rewards])
    assert [(example.prompt, example.completion) for example in examples] == [
        ((1, 2), (5, 6)),
        ((1, 2), (5, 7)),
        ((1, 2, 5, 7, 9), (8,)),
        ((1, 2), (4,)),
        ((1, 2, 4, 9), (3, 3)),
    ]
    third = pytest.approx(1 / 3)
    assert [example.policy for example in examples] == [(third,) * 2, (third,) * 2, (0.75,), (pytest.approx(-2 / 3),), (-0.75,) * 2]
    assert examples[2].behaviour_logprobs == group.attempts[1].logprobs[2:]
    (batch,) = pack(examples, batch_tokens=512, shares_prefixes=True)
    assert batch.tokens_BT.numel() == 2 + 1 + 2 + 3  # the prompt and 5; 7 and 9 behind it; 4, 9 and 3; a last token predicts nothing


def test_turns_without_signal_do_not_reach_the_update_but_are_anchored():
    group = Group(Task("?"), (attempt([5], [6]), attempt([7], [8])))
    rewards = [reward(0.0, 1.0), reward(0.0, 0.0)]
    (examples,) = examples_of([group], [rewards], turn_discount=0.0)
    assert [example.completion for example in examples] == [(6,), (8,)]
    (found,) = examples_of([group], [rewards], turn_discount=0.0, on_examples=anchored)
    assert [(e.policy, e.anchor) for e in found] == [(None, (1.0,)), ((0.5,), (1.0,)), (None, (1.0,)), ((-0.5,), (1.0,))]


def test_imitation_takes_right_turns_of_attempts_that_ended_right():
    group = Group(Task("?"), (attempt([5], [6]), attempt([7], [8]), attempt([9], [4]), attempt([3])))
    rewards = [reward(0.0, 1.0), reward(1.0, 0.0), reward(1.0, 1.0), reward(0.0)]
    (examples,) = imitation_examples([group], [rewards])
    assert [(e.prompt, e.completion, e.imitate) for e in examples] == [
        ((1, 2, 5, 9), (6,), (2.0,)),
        ((1, 2), (9,), (2.0,)),
        ((1, 2, 9, 9), (4,), (2.0,)),
    ]
