import pytest

from etude.engine.completion import Completion
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.prefix_values import prefixes, scores_through, split_into_steps
from etude.rollouts.steps import Steps
from etude.tasks.reward import Reward
from etude.tasks.task import Task

TWO = Steps("tokens", max_tokens=2)


def attempt(*own):
    return Attempt.of([1], Completion(own, (-1.0,) * len(own), "", "stop", 0, 0))


@pytest.fixture
def group():
    """The first two begin alike; the last one could not be scored."""
    return Group(Task("?"), (attempt(5, 6, 7), attempt(5, 6, 8, 9, 4), attempt(4), attempt(5, 6)))


def test_independent_attempts_get_the_means_of_those_that_begin_alike(group):
    """By hand: the root 1/3, of [5, 6] the mean of 1 and 0, else an attempt's own score."""
    rewards = [Reward(1.0), Reward(0.0), Reward(0.0), Reward(None)]
    found, judged = split_into_steps(group, rewards, TWO, str)
    assert [each.step_lengths for each in found.attempts] == [(2, 1), (2, 2, 1), (1,), (2,)]
    assert [reward.step_values for reward in judged] == [
        pytest.approx((1 / 3, 1 / 2, 1.0)),
        pytest.approx((1 / 3, 1 / 2, 0.0, 0.0)),
        pytest.approx((1 / 3, 0.0)),
        (),
    ]
    assert [reward.score for reward in judged] == [1.0, 0.0, 0.0, None]


def test_an_attempt_alone_after_a_parting_keeps_the_advantage_of_its_outcome(group):
    """Four attempts of steps of a token, scores 1, 0, 0, 0; the first two share a step. By hand: the shared step is worth 1/2, the others
    0, so its baseline is 1/6; then the two part, and each has the other's score for a baseline, to its end. The third and fourth are
    alone from the root: what the others got is 1/3.
    """
    group = Group(Task("?"), (attempt(5, 6, 7), attempt(5, 8, 9), attempt(4, 4), attempt(3)))
    found, judged = split_into_steps(group, [Reward(1.0), Reward(0.0), Reward(0.0), Reward(0.0)], Steps("tokens", max_tokens=1), str)
    assert [reward.step_baselines for reward in judged] == [
        pytest.approx((1 / 6, 0, 0)),
        pytest.approx((1 / 6, 1, 1)),
        pytest.approx((1 / 3, 1 / 3)),
        pytest.approx((1 / 3,)),
    ]
    assert STEP_ADVANTAGES["vineppo"]([found], [judged])[0] == [
        pytest.approx((1 / 3, 1, 1)),
        pytest.approx((1 / 3, -1, -1)),
        pytest.approx((-1 / 3, -1 / 3)),
        pytest.approx((-1 / 3,)),
    ]


def test_a_lone_attempt_has_nothing_to_be_compared_with():
    found, judged = split_into_steps(Group(Task("?"), (attempt(5, 6, 7),)), [Reward(1.0)], TWO, str)
    assert STEP_ADVANTAGES["vineppo"]([found], [judged]) == [[(0.0, 0.0, 0.0)]]


def test_scores_are_gathered_by_what_attempts_begin_with(group):
    found, judged = split_into_steps(group, [Reward(1.0), Reward(0.5), Reward(None), Reward(0.0)], TWO, str)
    assert prefixes(found.attempts[1]) == [(), (5, 6), (5, 6, 8, 9), (5, 6, 8, 9, 4)]
    through = scores_through(found, judged)
    assert through[()] == through[5, 6] == [1.0, 0.5, 0.0] and through[5, 6, 7] == [1.0] and (4,) not in through
