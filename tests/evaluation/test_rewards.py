"""Mean rewards beside accuracies: by hand."""

from math import erf

import numpy as np
import pytest

from etude.evaluation.baselines import trivial_baselines
from etude.evaluation.measure import compare_measurements
from etude.evaluation.report.axes import tick_label, ticks_of
from etude.evaluation.rewards import compare_rewards, is_item_right, leads_with_reward, reward_row, tells_more
from etude.evaluation.statistics import paired_mean_test, wilson_interval
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def test_unscored_answers_are_in_no_mean_and_make_a_verifier_of_0_and_1_no_graded_one():
    rewards = [Reward(1.0), Reward(0.0), Reward(None)]
    row = reward_row(rewards)
    assert (row["mean_reward"], row["mean_reward_low"], row["mean_reward_high"]) == (0.5, *wilson_interval(1, 2))
    assert not tells_more({**row, "accuracy": 1 / 3, "n": 3, "unscored": 1})
    assert reward_row([Reward(None)]) == {"mean_reward": None, "mean_reward_low": None, "mean_reward_high": None}


@pytest.mark.parametrize(
    ("before", "after", "leads"),
    [
        ((0.0, 0.007), (0.0, 0.063), True),  # nothing can be fully right
        ((1.0, 5.0), (1.0, 9.0), True),  # everything is
        ((0.0, 0.1), (0.2, 0.3), False),
        ((0.0, 0.0), (0.0, 0.0), False),
        ((0.5, 0.5), (0.7, 0.7), False),
    ],
)
def test_models_are_compared_by_reward_if_accuracy_can_not_separate_them(before, after, leads):
    rows = [{"accuracy": accuracy, "mean_reward": reward, "n": 50, "unscored": 0} for accuracy, reward in (before, after)]
    assert leads_with_reward(*rows) is leads


def test_a_comparison_has_both_tests_and_says_which_leads():
    def page(scores):
        items = [{"score": score, "right": False, "sampled_reward": score} for score in scores]
        return {"suite": "sums", "items": items, "row": {"accuracy": 0.0, "n": 4, "unscored": 1, "mean_reward": 0.1}}

    found = compare_measurements("base", "practice", page([0.1, 0.2, 0.0, None]), page([0.4, 0.2, 0.3, 0.5]))
    assert found["leads"] == "mean_reward" and found["difference"] == 0.0 and found["p_value"] == 1.0
    assert found["reward_n"] == 3 and found["reward_difference"] == pytest.approx(0.2) and found["reward_p_value"] == 0.5
    assert found["sampled_reward_difference"] == pytest.approx(0.2)
    assert compare_rewards([{"score": None}], [{"score": 1.0}]) == {}


@pytest.mark.parametrize(("item", "right"), [({"score": 1.0}, True), ({"score": 20.0, "right": False}, False), ({"score": None}, False)])
def test_an_item_is_right_by_its_own_field_and_an_old_one_from_a_score_of_1(item, right):
    assert is_item_right(item) is right


def test_random_signs_are_sampled_if_there_are_too_many_to_enumerate():
    """Against the normal approximation, which is good for 60 differences: z = 0.5 · √60 / 1."""
    differences = [0.5 + sign for sign in (-1.0, 1.0)] * 30
    test = paired_mean_test(differences)
    spread = np.sqrt(sum(value**2 for value in differences))
    assert (test.n, test.difference) == (60, 0.5) and test.difference_low < 0.5 < test.difference_high
    assert test.p_value == pytest.approx(2 * 0.5 * (1 - erf(sum(differences) / spread / 2**0.5)), abs=2e-3)
    assert paired_mean_test([0.0, 0.0]).p_value == 1.0
    assert paired_mean_test([1.0] * 40).p_value == 1 / 20_001


def test_trivial_rules_have_a_mean_reward_where_they_answer_every_task():
    tasks = [Task("3 and 5", "5", "numeric"), Task("2 and 9", "9", "numeric"), Task("none", "4", "numeric")]
    found = trivial_baselines([Task("q", "7")], tasks, lambda pairs: [Reward(float(text) * 10, right_at=90.0) for text, _ in pairs])
    assert found.accuracies["largest_number"] == 1 / 3
    assert found.mean_rewards["most_frequent"] == 70.0 and "largest_number" not in found.mean_rewards


def test_an_axis_of_rewards_that_differ_by_rounding_alone_has_ticks():
    ticks = ticks_of(-3.9062500000000004, -3.90625)
    assert ticks == sorted(set(ticks)) and ticks[0] < -3.90625 < ticks[-1]
    assert all(tick_label(tick, ticks[1] - ticks[0], False) for tick in ticks)
