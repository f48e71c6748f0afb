from itertools import combinations
from math import comb

import numpy as np
import pytest

from etude.learn.advantages import ADVANTAGES, advantage_rule, dr_grpo, grpo, has_signal, lite_ppo, pass_at_k, rloo

SCORES = [1.0, 0.0, 0.0]
RANDOM = np.random.default_rng(0).random((4, 5)).tolist()


def test_dr_grpo_by_hand():
    assert dr_grpo([SCORES]) == [pytest.approx([2 / 3, -1 / 3, -1 / 3])]


def test_grpo_by_hand():
    deviation = (((2 / 3) ** 2 + 2 * (1 / 3) ** 2) / 2) ** 0.5  # with n - 1
    assert grpo([SCORES]) == [pytest.approx([x / (deviation + 1e-4) for x in (2 / 3, -1 / 3, -1 / 3)])]


def test_rloo_by_hand():
    assert rloo([SCORES]) == [pytest.approx([1.0, -0.5, -0.5])]


def test_lite_ppo_by_hand():
    deviation = (((1 - 0.6) ** 2 * 3 + 0.6**2 * 2) / 4) ** 0.5  # of 1, 0, 0, 1, 1
    expected = [[x / (deviation + 1e-4) for x in (2 / 3, -1 / 3, -1 / 3)], [0, 0]]
    assert lite_ppo([SCORES, [1.0, 1.0]]) == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("rule", ADVANTAGES.values(), ids=ADVANTAGES)
def test_attempts_without_a_score_get_nothing_and_change_nothing(rule):
    (with_gaps,), (without,) = rule([[1.0, None, 0.0, 0.0, None]]), rule([SCORES])
    assert with_gaps == [without[0], 0.0, without[1], without[2], 0.0]


@pytest.mark.parametrize("rule", ADVANTAGES.values(), ids=ADVANTAGES)
@pytest.mark.parametrize("scores", [[], [None], [0.7], [None, 0.7], [0.0, 0.0], [1.0, 1.0, None], [0.1] * 7])
def test_a_group_without_signal_gets_no_advantage(rule, scores):
    assert rule([scores]) == [[0.0] * len(scores)]
    assert rule([scores, SCORES])[0] == [0.0] * len(scores)
    assert not has_signal(scores)


@pytest.mark.parametrize("rule", ADVANTAGES.values(), ids=ADVANTAGES)
def test_every_rule_keeps_the_shape_prefers_the_better_and_sums_to_zero(rule):
    groups = [*RANDOM, SCORES, [0.2, None, 0.9], []]
    advantages = rule(groups)
    assert [len(row) for row in advantages] == [len(row) for row in groups]
    for scores, row in zip(groups, advantages, strict=True):
        assert sum(row) == pytest.approx(0, abs=1e-9)
        known = [(score, value) for score, value in zip(scores, row, strict=True) if score is not None]
        assert sorted(known) == sorted(known, key=lambda pair: pair[1]) or len({score for score, _ in known}) < len(known)
        assert all((value > 0) == (score > np.mean([s for s, _ in known])) for score, value in known)


@pytest.mark.parametrize("rule", ADVANTAGES.values(), ids=ADVANTAGES)
def test_advantages_follow_their_attempts_when_attempts_and_groups_are_permuted(rule):
    order, attempts = [2, 0, 3, 1], [4, 1, 0, 3, 2]
    shuffled = rule([[RANDOM[g][a] for a in attempts] for g in order])
    advantages = rule(RANDOM)
    assert shuffled == [pytest.approx([advantages[g][a] for a in attempts]) for g in order]


@pytest.mark.parametrize("rule", ADVANTAGES.values(), ids=ADVANTAGES)
def test_adding_a_constant_to_all_scores_changes_nothing(rule):
    assert rule([[score + 3 for score in row] for row in RANDOM]) == [pytest.approx(row) for row in rule(RANDOM)]


def test_other_groups_matter_to_lite_ppo_alone():
    for name, rule in ADVANTAGES.items():
        assert (rule([SCORES, [0.0, 1.0]])[0] == pytest.approx(rule([SCORES])[0])) == (name != "lite_ppo")


def by_enumeration(scores, k):
    """The same from all sets of k, one by one."""
    sets = list(combinations(range(len(scores)), k))
    best = [max(scores[i] for i in each) for each in sets]
    mean, deviation = np.mean(best), np.std(best)
    return [(np.mean([b for b, each in zip(best, sets, strict=True) if i in each]) - mean) / deviation for i in range(len(scores))]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("scores", [[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.75, 0.0, 0.9, 0.0, 0.0, 0.0], RANDOM[0]])
def test_pass_at_k_is_what_all_sets_of_k_say(scores, k):
    assert pass_at_k([scores], k=k)[0] == pytest.approx(by_enumeration(scores, k))


@pytest.mark.parametrize(("n", "c", "k"), [(8, 1, 4), (8, 3, 4), (8, 2, 2), (5, 1, 3), (6, 3, 1)])
def test_pass_at_k_is_the_papers_closed_form_for_right_and_wrong(n, c, k):
    rho = 1 - comb(n - c, k) / comb(n, k)
    sigma = (rho * (1 - rho)) ** 0.5
    right, wrong = (1 - rho) / sigma, (1 - rho - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / sigma
    assert pass_at_k([[1.0] * c + [0.0] * (n - c)], k=k)[0] == pytest.approx([right] * c + [wrong] * (n - c))


def test_pass_at_one_is_grpo_with_the_populations_deviation():
    for scores in (SCORES, *RANDOM):
        expected = (np.array(scores) - np.mean(scores)) / np.std(scores)
        assert pass_at_k([scores], k=1)[0] == pytest.approx(expected.tolist())


def test_where_every_set_has_a_right_attempt_nobody_gets_an_advantage():
    assert pass_at_k([[1.0, 1.0, 1.0, 0.0, 0.0]], k=3) == [[0.0] * 5]
    assert pass_at_k([SCORES], k=9) == [[0.0] * 3]  # a single set


def test_a_rule_is_found_by_its_name_and_sets_have_a_size():
    assert advantage_rule("pass_at_k", 2)([SCORES]) == pass_at_k([SCORES], k=2) != advantage_rule("pass_at_k", 1)([SCORES])
    assert advantage_rule("dr_grpo", 2) is dr_grpo
