"""Practice on attempts that were searched for."""

import itertools

import pytest
from run_outputs import assert_resumes, attempts_of, practised

from etude.recipes.practice import practice
from etude.rollouts import tree_search
from etude.rollouts.search.node_values import Outcomes
from etude.rollouts.tree import Tree
from etude.tasks.reward import Reward
from etude.tasks.task import Task

STEPS = {"rollout.search.steps.end": "tokens", "rollout.search.steps.max_tokens": 1, "rollout.search.width": 2}
METHODS = {
    "mcts": {"rollout.search.method": "mcts", "learn.advantage": "vineppo"},
    "beam": {"rollout.search.method": "beam", "rollout.search.beams": 2, "rollout.search.budget_tokens": 60},
    "vine": {"rollout.search.method": "vine", "rollout.search.chains": 2, "learn.advantage": "vineppo"},
    "tree": {"rollout.search.method": "tree", "rollout.search.chains": 2, "learn.advantage": "treerl"},
}


@pytest.fixture(scope="module", params=METHODS)
def searched(request, small, tmp_path_factory):
    folder, options = tmp_path_factory.mktemp(request.param) / "run", STEPS | METHODS[request.param]
    small(folder, options)
    return folder, options


def test_practice_learns_from_what_was_searched_for(searched):
    folder, options = searched
    rows, attempts = practised(folder), attempts_of(folder)
    assert all(row["sampled_tokens"] > 0 for row in rows)
    assert len(rows) == 4 and all(row["groups"] == 6 and row["policy_loss"] is not None for row in rows if row["groups_without_signal"] < 6)
    assert any(row["advantage"] for row in attempts) and {row["score"] for row in attempts} <= {0.0, 1.0}
    if "learn.advantage" not in options:
        sums = dict.fromkeys(((row["step"], row["task"]) for row in attempts), 0.0)
        for row in attempts:
            sums[row["step"], row["task"]] += row["advantage"]
        assert list(sums.values()) == pytest.approx([0.0] * len(sums), abs=1e-9)


@pytest.mark.parametrize("place", ["in the middle of a search", "behind one that is kept"])
def test_a_run_that_was_killed_resumes_to_the_same_bytes(searched, small, tmp_path, killed, killed_behind_step_3, place):
    folder, options = searched
    calls = itertools.count(1)
    in_a_search = killed(Outcomes, "__call__", lambda *_: next(calls) == 6)
    killing = in_a_search if place.startswith("in") else killed_behind_step_3
    assert_resumes(small, options | {"save_steps": 3}, tmp_path, killing, folder)


def test_trees_are_kept_and_drawn(searched):
    folder, _ = searched
    trees = attempts_of(folder, "trees")
    assert len(trees) == 4 * 6 and all(tree["nodes"][0]["parent"] is None for tree in trees)
    ends = [node["drawn"] for tree in trees for node in tree["nodes"] if node["finish"]]
    assert sum(ends) == len(attempts_of(folder))
    page = (folder / "report.html").read_text()
    assert page.count('<svg class="tree"') == 3 and 'href="#trees"' in page


def test_what_is_sampled_for_a_task_stays_within_its_budget(small, tmp_path, monkeypatch):
    trees, search = [], tree_search.search

    def watched(grown, *given, **named):
        search(grown, *given, **named)
        trees.extend(grown)

    monkeypatch.setattr(tree_search, "search", watched)
    small(tmp_path / "run", STEPS | METHODS["beam"] | {"rollout.search.budget_tokens": 40})
    assert len(trees) == 24 and max(tree.sampled_tokens for tree in trees) <= 40 + 4  # one answer may come after it
    assert max(tree.sampled_tokens for tree in trees) > 20


def test_practice_by_search_raises_the_accuracy(tmp_path):
    """As by `tree`, which the README runs."""
    how = {"rollout.search.method": "mcts", "learn.advantage": "vineppo", "machine.dtype": "float32"}
    result = practice("tiny", {name: value for name, value in STEPS.items() if "steps" in name} | how, run=tmp_path / "run")
    (pair,) = [pair for pair in result["paired"] if (pair["first"], pair["second"]) == ("warm_start", "practice")]
    assert pair["difference"] > 0.1 and pair["p_value"] < 1e-3


def test_attempts_of_a_tree_know_what_their_steps_were_worth():
    tree = Tree(Task("?", "x"), [1], lambda tokens: "".join(map(chr, tokens)))
    step = tree.add(tree.root, [65], [-0.1], key=0)
    right, wrong = (tree.add(step, [token], [-0.1], key=token) for token in (66, 67))
    outcomes = Outcomes(lambda pairs: [])
    for node, score in ((right, 1.0), (wrong, 0.0)):
        node.finish, node.value, outcomes.rewards[node] = "stop", score, Reward(score)
    for hard, value in ((False, 0.5), (True, 1.0)):
        group, rewards = tree_search.group_of(tree, outcomes, hard=hard)
        assert [attempt.text for attempt in group.attempts] == ["AB", "AC"] and group.attempts[0].step_lengths == (1, 1)
        assert [reward.step_values for reward in rewards] == [(value, value, 1.0), (value, value, 0.0)]


def test_hard_values_of_steps_and_the_outcomes_advantage_beside_them_change_what_is_learned(small, tmp_path):
    weights = {}
    for name, changes in {"soft": {}, "hard": {"learn.step_values": "hard"}, "both": {"learn.outcome_coef": 0.5}}.items():
        small(tmp_path / name, STEPS | METHODS["vine"] | {"steps": 2} | changes)
        weights[name] = (tmp_path / name / "model" / "model.safetensors").read_bytes()
    assert len(set(weights.values())) == 3
