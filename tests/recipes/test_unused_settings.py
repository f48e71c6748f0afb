"""What a run says of settings that were changed and that nothing reads."""

from dataclasses import fields

import pytest

from etude.cli import main
from etude.decoding.search_settings import AnswerSearch
from etude.engine.sampling import Sampling
from etude.recipes.evaluate import EvaluateSettings
from etude.recipes.generate import GenerateSettings
from etude.rollouts.search.settings import SEARCHES, Search
from etude.rollouts.steps import Steps
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, shipped_configurations
from etude.settings.unused import unread_of_search
from etude.training.parse import parse_practice
from etude.training.unused_settings import unused_settings


def settings(recipe="tiny", **changes):
    return parse_practice(find_configuration("practice", recipe), arguments_from(changes))


@pytest.mark.parametrize("recipe", shipped_configurations("practice"))
def test_recipes_that_ship_set_nothing_unused_settings(recipe):
    assert unused_settings(settings(recipe, **({"tasks.path": ["mine.jsonl"]} if recipe == "default" else {}))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge.model": "mine"}, "judge.model: reward is verifier"),
        ({"rollout.refine.turns": 3}, "rollout.refine.turns: rollout.search.method is samples"),
        ({"search": "beam", "rollout.search.chains": 2}, "rollout.search.chains: rollout.search.method is beam"),
        ({"rollout.search.width": 2, "rollout.search.steps.max_tokens": 3}, "rollout.search.width, rollout.search.steps.max_tokens: "),
        (
            {"learn.method": "imitation", "learn.advantage": "lite_ppo", "learn.clip_low": 0.1},
            "learn.advantage, learn.clip_low: learn.method is im",
        ),
        ({"learn.method": "imitation", "learn.loss": "gspo"}, "learn.loss: learn.method is imitation"),
        ({"learn.preference.beta": 0.3}, "learn.preference.beta: learn.method is policy_gradient"),
        ({"learn.turn_discount": 0.5}, "learn.turn_discount: rollout.search.method is samples"),
        ({"search": "mcts", "rollout.num_samples": 32}, "rollout.num_samples: rollout.search.method is mcts"),
        ({"search": "mcts", "rollout.search.value": "likelihood"}, "rollout.search.value: rollout.search.method is mcts"),
        ({"search": "beam", "rollout.search.value": "likelihood", "rollout.search.rollouts": 7}, "rollout.search.rollouts: "),
        ({"learn.outcome_coef": 0.5}, "learn.outcome_coef: learn.advantage is dr_grpo"),
        ({"learn.covariance.ratio": 0.1}, "learn.covariance.ratio: learn.loss is ppo"),
        (
            {"learn.loss": "kl_cov", "learn.clip_low": 0.1, "learn.clip_high": 0.1, "learn.covariance.clip_cov_lb": 0.5},
            "learn.clip_low, learn.clip_high, learn.covariance.clip_cov_lb: learn.loss is kl_cov",
        ),
        ({"learn.loss": "clip_cov", "learn.covariance.ppo_kl_coef": 2.0}, "learn.covariance.ppo_kl_coef: learn.loss is clip_cov"),
        ({"learn.pass_k": 2}, "learn.pass_k: learn.advantage is dr_grpo"),
        ({"learn.method": "imitation", "learn.pass_k": 2}, "learn.pass_k: learn.method is im"),
        ({"learn.step_values": "hard"}, "learn.step_values: rollout.search.method is samples"),
        ({"learn.loss": "cispo", "learn.clip_low": 0.9}, "learn.clip_low: learn.loss is cispo"),
        ({"learn.method": "preference", "learn.preference.simpo_gamma": 3}, "learn.preference.simpo_gamma: learn.preference.loss is dpo"),
        (
            {"tasks.actions.preset": "divide", "tasks.actions.malformed_score": 0.1},
            "tasks.actions.malformed_score: neither reward format nor ",
        ),
        ({"evaluation.thought.cue": "So"}, "evaluation.thought.cue: evaluation.thought.budgets is empty"),
        ({"retention.n": 9, "retention.text": ["x"]}, "retention.text, retention.n: retention.probe is false"),
        ({"preferences.loss": "simpo"}, "preferences.loss: preferences.steps is 0"),
        (
            {"curriculum": "levels", "tasks.family": "gcd", "curriculum.own_levels": 2, "curriculum.memory": 3},
            "callbacks.curriculum.memory: callbacks.curriculum.method is levels",
        ),
        ({"curriculum": "weakness", "curriculum.raise_at": 0.9}, "callbacks.curriculum.raise_at: callbacks.curriculum.method is weakness"),
        ({"synthetic_tasks": "svs", "synthetic_tasks.min_share": 0.5}, "callbacks.synthetic_tasks.min_share: callbacks.synthetic_tasks.me"),
        (
            {"entropy_bonus.entropy_coef": 0.1, "entropy_bonus.delta": 0.1},
            "callbacks.entropy_bonus.delta: callbacks.entropy_bonus.target is",
        ),
        ({"gate.every": 2, "gate.max_divergence": 1, "gate.factor": 3}, "callbacks.gate.factor: callbacks.gate.action is rollback"),
        (
            {"gate.every": 1, "retention.probe": True, "gate.divergence_n": 9},
            "callbacks.gate.divergence_n: callbacks.gate.max_divergence is null",
        ),
        (
            {"gate.every": 2, "gate.max_divergence": 1, "gate.max_accuracy_drop": 0.1},
            "callbacks.gate.max_accuracy_drop: retention.probe is false",
        ),
        ({"gate.every": 2, "gate.max_divergence": 1, "divergence.n": 2, "steps": 0}, "callbacks.gate, callbacks.divergence: steps is 0"),
    ],
)
def test_what_nothing_reads_is_told_with_the_reason(changes, said):
    (found,) = unused_settings(settings(**changes))
    assert found.startswith(said)


@pytest.mark.parametrize(
    "changes",
    [
        {"search": "refine", "rollout.refine.turns": 3, "learn.turn_discount": 0.5, "rollout.search.steps.max_tokens": 3},
        {"search": "mcts", "rollout.search.simulations": 3, "rollout.search.steps.max_tokens": 3},
        {"step_model": True, "rollout.search.steps.max_tokens": 3, "learn.advantage": "vineppo", "step_model.hidden": 8},
        {"learn.method": "preference", "learn.preference.beta": 0.3, "rationalize": True, "rationalize.hint": "It is {answer}."},
        {"reward": "judge", "judge.model": "mine"},
        {"learn.loss": "clip_cov", "learn.covariance.ratio": 0.1, "learn.covariance.clip_cov_lb": 0.5, "learn.clip_low": 0.1},
        {"learn.loss": "kl_cov", "learn.covariance.ratio": 0.1, "learn.covariance.ppo_kl_coef": 0.5},
        {"learn.advantage": "pass_at_k", "learn.pass_k": 2, "reward_shaping.method": "novelty", "reward_shaping.weight": 0.5},
        {"learn.loss": "gspo"},
        {"implicit_reward.coef": 0.5, "implicit_reward.optimizer.learning_rate": 1e-3},
    ],
)
def test_what_is_read_is_not_told(changes):
    assert unused_settings(settings(**changes)) == []


def test_every_method_says_which_settings_of_a_search_it_reads():
    names = {field.name for field in fields(Search)} - {"method"}
    assert {name.rstrip(".") for kind in SEARCHES.values() for name in kind.reads} == names


@pytest.mark.parametrize(
    ("changes", "unread"),
    [
        ({}, []),
        ({"simulations": 3}, ["search.simulations: search.method is none"]),
        ({"method": "mcts", "turns": 5, "chains": 9}, ["search.chains, search.turns: search.method is mcts"]),
        ({"method": "mcts", "simulations": 3, "value": "step_model"}, []),
        ({"method": "tree", "choose": "value", "value": "step_model"}, []),
        ({"method": "tree", "choose": "weighted", "value": "step_model"}, ["search.value: search.method is tree"]),
        ({"method": "beam", "value": "rollouts", "rollouts": 7, "steps": Steps("tokens")}, []),
        ({"method": "samples", "budget_tokens": 99}, []),
        ({"method": "refine", "turns": 5, "words": "Again.", "width": 9}, ["search.width: search.method is refine"]),
    ],
)
def test_what_a_search_for_answers_does_not_read_is_told(changes, unread):
    search, hot = AnswerSearch(**changes), Sampling(temperature=1.0)
    several = 2 if search.method == "samples" else 1
    for settings in (GenerateSettings(search=search, sampling=hot, num_samples=several), EvaluateSettings(search=search, sampling=hot)):
        names = [said.partition(":")[0] for said in unread_of_search(settings)]
        assert names == [said.partition(":")[0] for said in unread]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--max_new_tokens 2 --sampling.temperature 1 --search mcts --num_samples 8", "num_samples: search.method is mcts"),
        ("--max_new_tokens 2 --thought.budget_tokens 3", "max_new_tokens: thought.budget_tokens is set"),
        ("--max_new_tokens 2 --thought.cue So", "thought.cue: thought.budget_tokens is not set"),
    ],
)
def test_generate_tells_it(caplog, given, said):
    assert main(f"generate tiny-random --prompt a {given}".split()) == 0
    assert f"unused settings: {said}" in caplog.text


def test_a_run_tells_it_when_it_begins(tmp_path, capsys):
    from etude.console.reporter import Console
    from etude.recipes.practice import practice

    practice("tiny", {"steps": 0, "n": 16, "learn.turn_discount": 0.5}, run=tmp_path / "run", reporter=Console())
    assert "unused settings: learn.turn_discount: rollout.search.method is samples" in capsys.readouterr().out
