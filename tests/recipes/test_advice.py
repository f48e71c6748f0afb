"""What is said before a run begins."""

from types import SimpleNamespace

import pytest

from etude.learn.example import Example
from etude.recipes.advice import advice, expected_of_feedback
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.training.parse import callbacks_of, parse_practice

TOKENS = {"rollout.search.steps.end": "tokens", "rollout.search.steps.max_tokens": 2}


def said(lengths=(4, 4), **changes):
    settings = parse_practice(find_configuration("practice", "tiny"), arguments_from(changes))
    return advice(settings, [Example((1,), (7,) * length) for length in lengths], lambda tokens: "x" * len(tokens))


@pytest.mark.parametrize("method", ["beam", "mcts", "vine"])
def test_answers_of_one_step_are_said_to_leave_nothing_to_search(method):
    found = [sentence for sentence in said(**{"search": method}) if "are one step" in sentence]
    assert found and found[0].startswith("2 of 2 demonstrations are one step as rollout.search.steps.end line cuts them")
    assert not [sentence for sentence in said(**{"search": method} | TOKENS) if "are one step" in sentence]


def test_half_of_them_may_be_one_step():
    assert not any("one step" in sentence for sentence in said((2, 4), **{"search": "vine"} | TOKENS))
    assert any("2 of 3 demonstrations are one step" in sentence for sentence in said((2, 2, 4), **{"search": "vine"} | TOKENS))


@pytest.mark.parametrize(
    ("changes", "is_said"),
    [
        ({"search": "beam"}, True),
        ({"search": "beam", "learn.advantage": "vineppo"}, False),
        ({"search": "beam", "learn.advantage": "vineppo", "rollout.search.value": "likelihood"}, True),
        ({"search": "mcts", "learn.advantage": "grpo"}, True),
        ({"search": "mcts", "learn.advantage": "vineppo"}, False),
        ({"search": "mcts", "learn.method": "preference"}, False),
        ({"search": "vine"}, True),
        ({"search": "vine", "learn.advantage": "rloo"}, True),
        ({"search": "vine", "learn.advantage": "vineppo"}, False),
        ({"search": "vine", "learn.advantage": "vineppo", "learn.outcome_coef": 0.5}, True),
        ({"search": "tree"}, True),
        ({"search": "tree", "learn.advantage": "treerl"}, False),
        ({"search": "refine"}, False),
        ({}, False),
    ],
)
def test_a_policy_gradient_on_answers_that_are_not_independent_is_said_to_be_biased(changes, is_said):
    assert any("biases the policy gradient" in sentence for sentence in said(**changes | TOKENS)) == is_said


def test_a_plain_run_is_told_nothing():
    assert said() == []


@pytest.mark.parametrize(
    ("majority", "ahead"), [(0.75, ""), (0.5, ": little is to be gained by it"), (0.25, ": little is to be gained by it")]
)
def test_a_majority_vote_is_told_what_most_answers_know_beside_the_greedy_one_on_the_same_items(majority, ahead):
    settings = parse_practice(find_configuration("practice", "tiny"), arguments_from({"reward": "majority_vote"}))
    k = settings.evaluation.num_samples
    items: list[dict[str, float | None]] = [{"score": score} for score in (1.0, 0.0, 1.0, None, 1.0, 1.0)]
    items = [item | ({"sampled_reward": 0.5} if place < 4 else {}) for place, item in enumerate(items)]
    suite = {"suite": "sums", "row": {"pass_n": 4, f"majority_at_{k}": majority}, "items": items}
    (sentence,) = expected_of_feedback(settings, [suite, {"suite": "unsampled", "row": {"pass_n": 0}, "items": items}])
    told = f"right in {majority:.1%} of sums (n = 4, {k} answers each), where the greedy answer is in 50.0%"
    assert sentence == f"reward majority_vote teaches what most answers say: {told}{ahead}"
    assert not expected_of_feedback(parse_practice(find_configuration("practice", "tiny"), []), [suite])


@pytest.mark.parametrize(
    ("truncated", "reward", "is_said"), [(0.4, "self_training", True), (0.1, "self_training", False), (0.4, "verifier", False)]
)
def test_own_answers_that_are_cut_off_are_said_to_teach_shortness(truncated, reward, is_said):
    changes = {"reward": reward, "rollout.max_new_tokens": 24} | ({"learn.method": "imitation"} if reward == "self_training" else {})
    settings = parse_practice(find_configuration("practice", "tiny"), arguments_from(changes))
    found = expected_of_feedback(settings, [{"suite": "dev", "row": {"truncated": truncated}, "items": []}])
    assert len(found) == is_said
    if is_said:
        assert found[0].startswith("40.0% of the answers to dev are cut off at rollout.max_new_tokens 24")


def test_a_familys_own_levels_are_said_to_be_others_than_those_that_are_measured():
    def said(changes):
        settings, heard = parse_practice(find_configuration("practice", "number_sorting"), arguments_from(changes)), []
        for callback in callbacks_of(settings):
            callback.prepare(SimpleNamespace(settings=settings, reporter=SimpleNamespace(say=heard.append)))
        return [each for each in heard if "own_levels" in each]

    (sentence,) = said({"curriculum": "levels", "curriculum.own_levels": 2})
    assert "number_sorting's own " in sentence and "min_numbers" in sentence
    assert not said({"curriculum": "weakness"}) and not said({})
