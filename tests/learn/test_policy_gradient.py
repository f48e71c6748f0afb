"""Every search with advantages by step against exact gradients: policies that are tables, of which all answers can be enumerated."""

import pytest

from bench.gradients import SEARCHES, Table, cosine, mean_of, measured, noise, updates
from etude.learn.advantages import ADVANTAGES
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.rollouts.search.settings import SEARCHES as KNOWN

UNBIASED = [name for name in SEARCHES if name != "beam by likelihood"]


def test_every_search_is_measured():
    assert {how.method for how in SEARCHES.values()} == set(KNOWN)


@pytest.mark.parametrize("search", UNBIASED)
def test_both_of_two_coins_are_learned_from_alike(search):
    """Two fair flips, a score of their mean: the gradient of each token's logit is 1/8, at the second flip after each first one 1/16."""
    coins = Table({(): [0.5, 0.5], (0,): [0.5, 0.5], (1,): [0.5, 0.5]}, {(a, b): (a + b) / 2 for a in (0, 1) for b in (0, 1)}, length=2)
    exact = coins.gradient()
    assert exact[(), 1] == pytest.approx(1 / 8) and exact[(0,), 1] == pytest.approx(1 / 16) == exact[(1,), 1]
    found = mean_of(updates(coins, SEARCHES[search], ["vineppo"], 2000)["vineppo"])
    first, second = found[(), 1], found[(0,), 1] + found[(1,), 1]
    assert second / first == pytest.approx(1, abs=0.1)
    assert first == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("search", UNBIASED)
def test_vineppo_is_the_policy_gradient_of_every_search(search):
    """Not of what the search drew: deep steps, which a search draws more often than the policy comes to them, weigh no more for it."""
    table = Table.randomly(5, length=3)
    found = updates(table, SEARCHES[search], ["vineppo"], 1500)["vineppo"]
    assert noise(found) < 0.06
    assert cosine(mean_of(found), table.gradient()) > 0.99


def test_what_a_beam_drops_unscored_no_advantage_makes_up_for():
    """A run whose beam goes by likelihood says so when it begins."""
    table = Table.randomly(5, length=3)
    found = updates(table, SEARCHES["beam by likelihood"], ["vineppo"], 1000)["vineppo"]
    assert cosine(mean_of(found), table.gradient()) < 0.97


@pytest.mark.parametrize(("search", "rule", "is_gradient"), [("samples", "dr_grpo", True), ("beam", "dr_grpo", False)])
def test_the_measure_tells_a_gradient_from_what_is_none(search, rule, is_gradient):
    """Scores less their group's mean are none on a beam, whose answers begin alike."""
    table = Table.randomly(6)
    found = updates(table, SEARCHES[search], [rule], 600)[rule]
    assert (cosine(mean_of(found), table.gradient()) > 0.985) == is_gradient


def test_the_table_has_a_row_for_every_search_and_rule():
    rows = measured(40, [5])
    assert [(row["search"], row["advantage"]) for row in rows] == [
        (search, rule) for search in SEARCHES for rule in (*ADVANTAGES, *STEP_ADVANTAGES)
    ]
    assert all(len(row["cosines"]) == 1 and -1 <= row["cosines"][0] <= 1 for row in rows)
