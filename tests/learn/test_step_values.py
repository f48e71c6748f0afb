from dataclasses import replace

import pytest
from small_examples import attempt_of as attempt

from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings
from etude.learn.step_values import ValuePredictions, in_order, prefixes_of, step_targets_of, valued
from etude.rollouts.attempts import Attempt, Group, Source
from etude.tasks.reward import Reward
from etude.tasks.task import Task


@pytest.fixture
def worked():
    """Two attempts share a first step; one is right, one half right, the third wrong, the last could not be scored."""
    group = Group(Task("?"), (attempt([5, 6], [7]), attempt([5, 6], [8, 9]), attempt([4]), attempt([3], [2])))
    return group, [
        Reward(1.0, step_values=(0.5, 0.75, 1.0)),
        Reward(0.5, step_values=(0.5, 0.75, 0.5)),
        Reward(0.0, step_values=(0.5, 0.0)),
        Reward(None),
    ]


def test_soft_targets_are_means_and_hard_ones_ask_for_a_right_answer(worked):
    group, rewards = worked
    soft, hard = (step_targets_of([group], [rewards], kind) for kind in ("soft", "hard"))
    assert [step_target.targets for step_target in soft] == [(0.5, 0.75, 1.0), (0.5, 0.75, 0.5), (0.5, 0.0)]
    assert [step_target.targets for step_target in hard] == [(1.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0)]
    lower = [replace(reward, right_at=0.5) for reward in rewards]
    at_half = step_targets_of([group], [lower], "hard")
    assert [step_target.targets for step_target in at_half] == [(1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 0.0)]
    assert soft[1].prefixes == hard[1].prefixes == Prefixes((1,), (5, 6, 8, 9), (0, 2, 4))


def test_beginnings_end_with_own_tokens_whatever_stands_between():
    """Two own tokens, two of feedback, two own ones: steps of 1 and 3."""
    sources = (Source.GIVEN, Source.GIVEN, *(Source(kind) for kind in (1, 1, 2, 2, 1, 1)))
    found = Attempt((1, 2, 3, 4, 5, 6, 7, 8), sources, (-1.0,) * 4, "", "stop", 0, 0, step_lengths=(1, 3))
    assert prefixes_of(found) == Prefixes((1, 2), (3, 4, 5, 6, 7, 8), (0, 1, 6))


def test_constant_values_leave_the_last_step_with_all_the_advantage(worked):
    """By hand, every V 0.3: nothing changes on the way, and the end is worth the score."""
    group, rewards = worked
    constant = [[(0.3,) * (len(each.step_lengths) + 1) for each in group.attempts]]
    (found,) = valued([rewards], constant)
    assert STEP_ADVANTAGES["vineppo"]([group], [found])[0] == [
        pytest.approx((0, 0, 0.7)),
        pytest.approx((0, 0, 0.2, 0.2)),
        pytest.approx((-0.3,)),
        (0.0, 0.0),
    ]


def test_trust_blends_values_and_without_it_they_stay(worked):
    _, rewards = worked
    values = [[(0.1, 0.35, 0.9), (0.1, 0.35, 0.2), (0.1, 0.6), (0.1, 0.2, 0.3)]]
    rewards[0] = replace(rewards[0], step_baselines=(0.25, 0.5))
    assert valued([rewards], values, trust=0.0)[0][0] == rewards[0]
    blended = valued([rewards], values, trust=0.25)[0]
    assert blended[0].step_values == pytest.approx((0.4, 0.65, 1.0))
    assert blended[0].step_baselines == pytest.approx((0.75 * 0.25 + 0.25 * 0.1, 0.75 * 0.5 + 0.25 * 0.35))
    assert blended[1].step_baselines == pytest.approx(blended[1].step_values[:-1])
    assert valued([rewards], values)[0][1].step_values == pytest.approx((0.1, 0.35, 0.5))


def test_what_it_knew_is_measured_at_the_middle(worked):
    """By hand: middles 0.35 (score 1), 0.45 (score 1/2) and, of one step, its root 0.2 (score 0); another group has one attempt."""
    _, rewards = worked
    values = [[(0.2, 0.35, 0.9), (0.2, 0.45, 0.2), (0.2, 0.6), (0.2, 0.2, 0.3)], [(0.2, 0.4)]]
    found = ValuePredictions.of([rewards, [Reward(1.0, step_values=(1.0, 1.0))]], values)
    assert found.groups == [[(0.35, 1.0), (0.45, 0.5), (0.2, 0.0)], [(0.2, 1.0)]]
    assert found.ordered() == [0.0, 1.0, 1.0]
    assert found.metrics(mean_score=0.5) == {
        "brier": pytest.approx((0.65**2 + 0.05**2 + 0.2**2 + 0.8**2) / 4),
        "brier_of_mean": pytest.approx(0.75 / 4),
        "auc": pytest.approx((0 + 1 + 1 + 0 + 0.5) / 5),  # with the other group's: behind 1/2, a tie with 0
        "auc_within_task": pytest.approx(2 / 3),
    }


def test_where_nothing_was_scored_or_all_alike_nothing_is_said(worked):
    group, _ = worked
    nothing = ValuePredictions.of([[Reward(None)] * 4], [[(0.5,) * (len(each.step_lengths) + 1) for each in group.attempts]])
    assert set(nothing.metrics(0.5).values()) == {None}
    assert in_order([(0.1, 1.0), (0.9, 1.0)]) == []


def test_trust_is_earned_by_pairs_put_in_order_and_older_ones_fade(llama):
    """By hand: 3 of 4 give 2 · 3/4 - 1; then 0.9 · 3 of 0.9 · 4 + 1; worse than chance is no trust."""
    made = StepModel(llama, StepModelSettings())
    assert made.trust == 0.0 and made.mean_score == 0.5
    made.observe([1.0, 0.0, 0.5], [1.0, 1.0, 1.0, 0.0])
    assert made.trust == pytest.approx(0.5) and made.mean_score == pytest.approx(0.5)
    made.observe([1.0], [0.0])
    assert made.trust == pytest.approx(2 * 2.7 / 4.6 - 1) and made.mean_score == pytest.approx(2.5 / 4)
    made.observe([], [0.0] * 9)
    assert made.trust == 0.0
    made.settings = replace(made.settings, trust=0.7)
    assert made.trust == 0.7
