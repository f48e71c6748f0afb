from pathlib import Path

import pytest

from etude.decoding.settings import READS
from etude.errors import unknown
from etude.kv_cache.settings import VIEWS
from etude.learn.loss_settings import POLICY_LOSS_NAMES
from etude.learn.settings import ADVANTAGES, METHODS, STEP_ADVANTAGES
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.evaluate_settings import EvaluateSettings
from etude.recipes.generate_settings import GenerateSettings
from etude.rollouts.search.settings import REFINE, SEARCHES
from etude.settings.configuration import settings_of
from etude.settings.spellings import NAMES, SECTIONS, VALUES, nearest_setting, our_value
from etude.training.parse import SHORT
from etude.training.settings import OTHER_REWARDS, REWARDS, PracticeSettings

CHOICES = {
    "learn.advantage": [*ADVANTAGES, *STEP_ADVANTAGES],
    "learn.loss": POLICY_LOSS_NAMES,
    "learn.method": METHODS,
    "reward": (*REWARDS, *OTHER_REWARDS),
    "search.method": [*SEARCHES, REFINE],
    "decoding.method": READS,
    "kv_cache.policy": VIEWS,
    "machine.dtype": ("float32", "bfloat16"),
    "machine.device": ("cuda", "cpu"),
}
COMMANDS = (PracticeSettings, AdaptSettings, EvaluateSettings, GenerateSettings)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("learn.optim.learning_rate", "learn.optimizer.learning_rate"),
        ("learn.optimizer.lr", "learn.optimizer.learning_rate"),
        ("warm_start.lr", "warm_start.optimizer.learning_rate"),
        ("warm-start.steps", "warm_start.steps"),
        ("lr", "learn.optimizer.learning_rate"),
        ("learning-rate", "learn.optimizer.learning_rate"),
        ("rollout.temperature", "rollout.sampling.temperature"),
        ("num_generations", "rollout.num_samples"),
        ("kl_coef", "callbacks.kl_penalty.kl_coef"),
        ("learn.kl_coef", "callbacks.kl_penalty.kl_coef"),
        ("learn.beta", "learn.preference.beta"),
        ("entropy_coeff", "callbacks.entropy_bonus.entropy_coef"),
        ("max_completion_length", "rollout.max_new_tokens"),
        ("batch_size", "rollout.tasks_per_step"),
        ("num_train_epochs", "learn.epochs"),
        ("lora_r", "learn.lora.rank"),
        ("model_name_or_path", "model"),
        ("reward_funcs", "tasks.verifier"),
        ("rollout.search.beem", "rollout.search.beams"),
        ("stepz", "steps"),
        ("zzzz", None),
    ],
)
def test_a_name_that_is_no_setting_finds_the_one_that_was_meant(name, meant):
    assert nearest_setting(name, list(settings_of(PracticeSettings)), SHORT) == meant


def test_another_librarys_name_maps_to_the_setting_that_the_command_has():
    assert nearest_setting("temperature", list(settings_of(GenerateSettings))) == "sampling.temperature"
    assert nearest_setting("max_tokens", list(settings_of(GenerateSettings))) == "max_new_tokens"
    assert nearest_setting("limit", list(settings_of(EvaluateSettings))) == "evaluation.n"
    assert nearest_setting("lr", list(settings_of(AdaptSettings))) == "study.optimizer.learning_rate"


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("learn.advantage", "group", "did you mean 'grpo'?"),
        ("learn.advantage", "DR-GRPO", "did you mean 'dr_grpo'?"),
        ("learn.advantage", "loo", "did you mean 'rloo'?"),
        ("learn.advantage", "gspo", "did you mean 'grpo' (and learn.loss says how it is clipped)?"),
        ("learn.loss", "vanilla", "did you mean 'ppo'?"),
        ("learn.method", "sft", "did you mean 'imitation' (of own right attempts; given demonstrations are learned by warm_start.steps)?"),
        ("learn.method", "dpo", "did you mean 'preference' (with learn.preference.loss)?"),
        ("rollout.search.method", "best_of_n", "did you mean 'samples'?"),
    ],
)
def test_the_fields_word_for_a_value_finds_ours(setting, value, hint):
    assert hint in str(unknown(setting, value, CHOICES.get(setting, CHOICES["search.method"])))


def test_every_word_leads_to_a_setting_or_a_choice_that_there_is():
    there = {name for command in COMMANDS for name in settings_of(command)}
    assert {ours for names in NAMES.values() for ours in names} <= there
    assert not SECTIONS.keys() & {part for name in there for part in name.split(".")[:-1]}
    for setting, words in VALUES.items():
        assert {ours for ours, _ in words.values()} <= {*CHOICES[setting]}
        assert not words.keys() & {*CHOICES[setting]}, setting


def test_a_valid_choice_gets_no_hint():
    assert our_value("learn.advantage", "dr_grpo") is None and our_value("unheard.of", "grpo") is None


def test_the_page_of_methods_has_every_one():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf8")
    for word in (*NAMES, *SECTIONS, *(word for words in VALUES.values() for word in words)):
        assert f"`{word}`" in page, word


def test_of_very_many_choices_the_nearest_are_named():
    message = str(unknown("family", "chain_sums", [f"family_{place}" for place in range(99)] + ["chain_sum"]))
    assert message.startswith("unknown family 'chain_sums': did you mean 'chain_sum'? Nearest of 100: chain_sum, ")
    assert message.count(",") == 5
