from functools import partial

import pytest
from small_examples import attempt_of

from etude.learn.pairs import PAIRS, Pair
from etude.rollouts.attempts import Group
from etude.tasks.reward import Reward
from etude.tasks.task import Task

PROMPT = (1, 2)
attempt = partial(attempt_of, prompt=PROMPT)


def group(*attempts):
    return Group(Task("?"), attempts)


def test_outcome_pairs_the_best_with_the_worst_in_turn():
    attempts = [attempt([5]), attempt([6]), attempt([7]), attempt([8]), attempt([9])]
    rewards = [Reward(score) for score in (0.0, 1.0, 0.5, 0.0, None)]
    pairs = [Pair(PROMPT, (6,), (5,)), Pair(PROMPT, (6,), (8,))]
    assert PAIRS["outcome"](group(*attempts), rewards, 1) == pairs[:1]
    assert PAIRS["outcome"](group(*attempts), rewards, 9) == pairs


def test_length_matched_takes_those_that_differ_least_and_none_twice():
    attempts = [attempt([5] * 9), attempt([6] * 4), attempt([7] * 5), attempt([8] * 2), attempt([9] * 8)]
    rewards = [Reward(score) for score in (1.0, 1.0, 0.0, 0.0, 0.0)]
    pairs = PAIRS["length_matched"](group(*attempts), rewards, 3)
    assert [(len(pair.chosen), len(pair.rejected)) for pair in pairs] == [(9, 8), (4, 5)]


def test_step_pairs_the_best_with_the_worst_step_behind_one_beginning():
    attempts = [attempt([5, 6], [7]), attempt([5, 6], [8, 9]), attempt([4], [3]), attempt([4], [2])]
    values = [(0.5, 0.5, 1.0), (0.5, 0.5, 0.0), (0.5, 0.2, 0.2), (0.5, 0.2, 0.2)]
    rewards = [Reward(own[-1], step_values=own) for own in values]
    pairs = PAIRS["step"](group(*attempts), rewards, 9)
    assert pairs == [Pair((*PROMPT, 5, 6), (7,), (8, 9)), Pair(PROMPT, (5, 6), (4,))]  # differences of 1 and of 0.3; behind 4 all are alike
    assert PAIRS["step"](group(*attempts), rewards, 1) == pairs[:1]


@pytest.mark.parametrize("rule", PAIRS)
def test_groups_without_signal_make_no_pairs(rule):
    attempts = [attempt([5], [6]), attempt([5], [7])]
    for scores in ((1.0, 1.0), (None, 0.0), (None, None)):
        rewards = [Reward(score, step_values=(0.5, 0.5, score or 0.0)) for score in scores]
        assert PAIRS[rule](group(*attempts), rewards, 4) == []


@pytest.mark.parametrize("rule", ["outcome", "length_matched"])
def test_equal_attempts_are_compared_with_each_other_nowhere_and_count_once(rule):
    attempts = [attempt([5]), attempt([5]), attempt([6]), attempt([6])]
    rewards = [Reward(score) for score in (1.0, 0.0, 0.0, 0.0)]  # a reward that is not sure of 5
    assert PAIRS[rule](group(*attempts), rewards, 4) == []
    assert PAIRS[rule](group(*attempts), [Reward(1.0), Reward(1.0), *rewards[2:]], 4) == [Pair(PROMPT, (5,), (6,))]


@pytest.mark.parametrize("rule", PAIRS)
def test_attempts_that_nobody_parted_make_no_pairs_of_steps_and_all_pairs_are_of_the_group(rule):
    attempts = [attempt([5], [6]), attempt([5], [7]), attempt([8])]
    rewards = [Reward(1.0, step_values=(0.3, 0.5, 1.0)), Reward(0.0, step_values=(0.3, 0.5, 0.0)), Reward(0.0)]
    pairs = PAIRS[rule](group(*attempts), rewards, 4)
    assert pairs and all(pair.prompt[:2] == PROMPT and pair.chosen != pair.rejected for pair in pairs)
