"""Advice before a run begins, on settings that are valid but questionable."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.rewards import is_item_right
from etude.learn.example import Example
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.rollouts.search.settings import BY_STEPS, BY_VALUE
from etude.rollouts.steps import Steps
from etude.training.settings import PracticeSettings
from etude.training.unused_settings import said_of_unused

_READ = 100
"""Number of demonstrations whose steps are checked."""

_CUT_OFF = 0.15
"""Share of truncated answers above which advice is given."""


def advice(settings: PracticeSettings, demonstrations: Sequence[Example], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return advice on the settings and the demonstrations; `decode` turns tokens into text."""
    rollout = settings.rollout
    found = said_of_unused(settings) + _too_long(demonstrations, rollout.max_new_tokens)
    if rollout.search.method in BY_STEPS or "step_model" in settings.callbacks:
        found += _of_one_step(demonstrations, rollout.search.steps, decode)
    return found + _not_independent(settings)


def expected_of_feedback(settings: PracticeSettings, suites: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what rewards without gold answers can teach the model at the start of practice, by its measured `suites`. A majority vote
    teaches what most of its answers say, and no more; its own answers teach it to be short if many are truncated.
    """
    if not settings.steps:
        return []
    k, room = settings.evaluation.num_samples, settings.rollout.max_new_tokens
    if "self_training" in settings.reward_parts:
        return [_cut_off(suite, room) for suite in suites if suite["row"].get("truncated", 0) > _CUT_OFF]
    if "majority_vote" not in settings.reward_parts:
        return []
    return [_majority_and_greedy(suite, k) for suite in suites if f"majority_at_{k}" in suite["row"]]


def _cut_off(suite: Mapping[str, Any], room: int) -> str:
    told = f"{suite['row']['truncated']:.1%} of the answers to {suite['suite']} are cut off at rollout.max_new_tokens {room}"
    return f"{told}: they teach nothing, and from the others the model learns to be shorter with every step; set it to more"


def _majority_and_greedy(suite: Mapping[str, Any], k: int) -> str:
    row = suite["row"]
    majority, greedy = row[f"majority_at_{k}"], fmean(is_item_right(item) for item in suite["items"] if "sampled_reward" in item)
    measured = f"{suite['suite']} (n = {row['pass_n']}, {k} answers each), where the greedy answer is in {greedy:.1%}"
    ahead = "" if majority > greedy else ": little is to be gained by it"
    return f"reward majority_vote teaches what most answers say: right in {majority:.1%} of {measured}{ahead}"


def _too_long(demonstrations: Sequence[Example], room: int) -> list[str]:
    """Advise on length: a model learns to write as long as its demonstrations, and longer answers are truncated in practice."""
    lengths = [len(shown.completion) for shown in demonstrations]
    number = sum(length > room for length in lengths)
    if not number:
        return []
    return [
        f"{number} of {len(lengths)} demonstrations are longer than rollout.max_new_tokens {room} (the longest has {max(lengths)} tokens): "
        "answers like them will be cut off"
    ]


def _of_one_step(demonstrations: Sequence[Example], steps: Steps, decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Advise on steps: if answers have a single step, a search samples independent answers, and step advantages are answer advantages."""
    some = demonstrations[:_READ]
    number = sum(len(steps.lengths(shown.completion, decode)) == 1 for shown in some)
    if 2 * number <= len(some):
        return []
    return [
        f"{number} of {len(some)} demonstrations are one step as rollout.search.steps.end {steps.end} cuts them, and of such "
        "answers no step is searched or valued: set it to tokens, with rollout.search.steps.max_tokens well below their length"
    ]


def _not_independent(settings: PracticeSettings) -> list[str]:
    """Advise on searches: their answers share prefixes, and a beam or mcts continues by scores, so they are no samples of the policy.
    Advantages of answers assume samples (measured: `python -m bench.gradients`).
    """
    search_settings, learn = settings.rollout.search, settings.learn
    search = search_settings.method
    if not settings.rollout.is_search or learn.method != "policy_gradient":
        return []
    is_by_outcomes = search not in BY_VALUE or search_settings.value == "rollouts" or (search == "mcts" and search_settings.to_end)
    if not is_by_outcomes:
        return [
            f"rollout.search.value {search_settings.value} drops steps of which no answer is scored, which biases the policy gradient "
            "whatever learn.advantage is: set rollout.search.value to rollouts (of mcts rollout.search.to_end to true)"
        ]
    if learn.advantage not in STEP_ADVANTAGES:
        return [
            f"rollout.search.method {search} gives answers that are not independent, but learn.advantage {learn.advantage} takes them for "
            "independent ones, which biases the policy gradient: learn.advantage vineppo compares what was drawn at one place"
        ]
    if learn.outcome_coef:
        return [
            f"rollout.search.method {search} gives answers that are not independent, but learn.outcome_coef "
            f"{learn.outcome_coef} adds advantages that take them for independent ones, which biases the policy gradient: set it to 0"
        ]
    return []
