"""Settings of an evaluation. Every field is a `--key` of the command line; without torch, so that they are read and checked without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from etude.decoding.search_settings import SHORT, AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.device.machine_settings import Machine
from etude.engine.settings import Sampling
from etude.errors import UserError, at_least
from etude.evaluation.settings import Evaluation
from etude.kv_cache.settings import KVCacheSettings
from etude.rewards.judge import Judging
from etude.rewards.unscored import check_max_share
from etude.rewards.verifier_reward import Isolation
from etude.rollouts.thinking import Thoughts
from etude.settings.configuration import find_configuration, flatten, parse, to_plain_values
from etude.training.generation_config import checked_generation_config, find_generation_config, generation_config_of
from etude.training.parse import parse_practice

THOUGHT = {f"thought.{each.name}": f"evaluation.thought.{each.name}" for each in fields(Thoughts)}
COMMON = (
    *("recipe", "evaluation.path", "evaluation.n", "evaluation.pass_n", "evaluation.num_samples", "verifier", "columns", "system"),
    *("instruction", "max_new_tokens", "sampling.temperature", "decoding.method", "decoding.k", "search.method"),
    *("kv_cache.policy", "kv_cache.keep_ratio", "seed", "machine.device", "machine.dtype"),
)
"""The settings that help shows first."""
OWN_SHORT = SHORT | THOUGHT | {"num_samples": "evaluation.num_samples"}
"""Short options of the command line, such as `--thought.budgets`."""


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of an evaluation: suites, verifier, prompts and decoding.

    Unset fields come from the recipe, if one is named, defaults included; else from the model folder's `etude.yaml`.
    """

    recipe: str | None = None
    """Practice configuration (name or YAML) whose tasks, evaluation and prompt settings are used; null = none."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    verifier: str | None = None
    """Verifier of all items, instead of their own: exact, numeric, calculator, choice, math or file.py:function."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, answer, ...) to those of the files."""
    system: str | None = None
    """System message before every prompt."""
    instruction: str | None = None
    """Text after every question, such as the format of the answer."""
    max_new_tokens: int = 64
    """Longest answer in tokens, unless evaluation.max_new_tokens is set."""
    sampling: Sampling = field(default_factory=Sampling)
    search: AnswerSearch = field(default_factory=AnswerSearch)
    """A search whose answers are compared with greedy ones; `samples` are evaluation.num_samples."""
    decoding: ReliableDecoding = field(default_factory=ReliableDecoding)
    """A decoding method whose answers are compared with greedy ones; they are decoded greedily."""
    judge: Judging = field(default_factory=lambda: Judging(how="pairwise"))
    """A judge that compares the greedy answer with that of the decoding method; none unless there is a judge.model."""
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    seed: int = 0
    right_at: float | None = None
    """Score from which an answer is right (tasks.right_at); null = the verifier's threshold."""
    timeout_seconds: float = 5.0
    """Time limit of a verifier for one answer, in seconds."""
    max_unscored_share: float = 0.1
    """Stop the run if more than this share of a suite's answers, and more than two, have no score; 1 = never."""
    isolate_verifiers: Isolation = True
    """Sandbox verifiers: true = as far as the kernel can; `required` = refuse to run if anything stays open; false = off."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        at_least("max_new_tokens", self.max_new_tokens, 1)
        check_max_share(self.max_unscored_share)
        self.search.check(self.sampling)
        self.kv_cache.check_search("search.method", self.search.method)
        if self.judge.model is not None and not self.decoding.is_on:
            raise UserError("judge.model compares answers of a method of decoding with greedy ones: choose a --method, or leave it out")
        if self.judge.how != "pairwise":
            raise UserError(f"judge.how is {self.judge.how}, but here answers are compared: leave it out")
        if self.search.method == "samples":
            at_least("evaluation.num_samples (for search.method samples)", self.evaluation.num_samples, 2)


def parse_evaluate(model: str, overrides: Sequence[str]) -> EvaluateSettings:
    """Read the settings: overrides, then the recipe that they name, or else the model folder's `etude.yaml`. Raises UserError for wrong
    ones.
    """
    return parse(EvaluateSettings, find_generation_config(model), overrides, adjust=_with_recipe, short=OWN_SHORT)


def _with_recipe(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    asked = checked_generation_config(values)
    if "recipe" not in given:
        return asked
    recipe = parse_practice(find_configuration("practice", given["recipe"]), [])
    taken = generation_config_of(recipe) | {"evaluation": to_plain_values(recipe.evaluation), "seed": recipe.seed}
    taken |= {"timeout_seconds": recipe.timeout_seconds, "isolate_verifiers": recipe.isolate_verifiers}
    taken |= {"max_unscored_share": recipe.max_unscored_share}
    return {
        **asked,
        **{name: value for name, value in flatten(taken).items() if not name.startswith("evaluation.parameters.")},
        "evaluation.parameters": recipe.evaluation.parameters,
        "verifier": recipe.tasks.verifier,
        "right_at": recipe.tasks.right_at,
        "columns": recipe.tasks.columns,
    }
