"""What a person should know before a run begins, though it is no mistake."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.rewards import is_item_right
from etude.learn.example import Example
from etude.learn.step_credit import STEP_CREDIT
from etude.rollouts.search.settings import BY_STEPS, BY_VALUE
from etude.rollouts.steps import Steps
from etude.training.settings import PracticeSettings
from etude.training.unused_settings import said_of_unused

_READ = 100
"""Demonstrations whose steps are looked at."""

_CUT_OFF = 0.15
"""Share of answers that are cut off from which on something is said of it."""


def advice(settings: PracticeSettings, demonstrations: Sequence[Example], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Return sentences for the demonstrations that there are; `decode` makes text of tokens."""
    explore = settings.explore
    found = said_of_unused(settings) + _too_long(demonstrations, explore.max_new_tokens)
    if explore.search.method in BY_STEPS or "step_model" in settings.callbacks:
        found += _of_one_step(demonstrations, explore.search.steps, decode)
    return found + _not_independent(settings)


def expected_of_feedback(settings: PracticeSettings, suites: Sequence[Mapping[str, Any]]) -> list[str]:
    """What feedback without a teacher may teach the model that practice begins with, by its measured `suites`: agreement what most of its
    answers say, and no more; its own answers to be short, where many have no room.
    """
    if not settings.steps:
        return []
    k, room = settings.evaluation.num_samples, settings.explore.max_new_tokens
    if "self_training" in settings.feedback_parts:
        return [_cut_off(suite, room) for suite in suites if suite["row"].get("truncated", 0) > _CUT_OFF]
    if "agreement" not in settings.feedback_parts:
        return []
    return [_majority_and_greedy(suite, k) for suite in suites if f"majority_at_{k}" in suite["row"]]


def _cut_off(suite: Mapping[str, Any], room: int) -> str:
    told = f"{suite['row']['truncated']:.1%} of the answers to {suite['suite']} are cut off at explore.max_new_tokens {room}"
    return f"{told}: they teach nothing, and from the others the model learns to be shorter with every step; set it to more"


def _majority_and_greedy(suite: Mapping[str, Any], k: int) -> str:
    row = suite["row"]
    majority, greedy = row[f"majority_at_{k}"], fmean(is_item_right(item) for item in suite["items"][: row["pass_n"]])
    told = f"agreement teaches what most answers say: right in {majority:.1%} of {suite['suite']} (n = {row['pass_n']}, {k} answers each)"
    ahead = "" if majority > greedy else ": little is to be gained by it"
    return f"{told}, where the greedy answer is in {greedy:.1%}{ahead}"


def _too_long(demonstrations: Sequence[Example], room: int) -> list[str]:
    """Advise on length: a model learns to write as long as its demonstrations are; what has no room in practice can't be right."""
    lengths = [len(shown.completion) for shown in demonstrations]
    number = sum(length > room for length in lengths)
    if not number:
        return []
    return [
        f"{number} of {len(lengths)} demonstrations are longer than explore.max_new_tokens {room} (the longest has {max(lengths)} tokens): "
        "answers like them will be cut off"
    ]


def _of_one_step(demonstrations: Sequence[Example], steps: Steps, decode: Callable[[Sequence[int]], str]) -> list[str]:
    """Advise on steps: a search over answers of a single step draws independent answers, and credit by step is that of answers."""
    some = demonstrations[:_READ]
    number = sum(len(steps.lengths(shown.completion, decode)) == 1 for shown in some)
    if 2 * number <= len(some):
        return []
    return [
        f"{number} of {len(some)} demonstrations are one step as explore.search.steps.end {steps.end} cuts them, and of such "
        "answers no step is searched or valued: set it to tokens, with explore.search.steps.max_tokens well below their length"
    ]


def _not_independent(settings: PracticeSettings) -> list[str]:
    """Answers of a search begin alike, and what a beam or mcts goes on with depends on scores: they are no sample of the policy's. Credit
    of answers takes them for one (measured: `python -m bench.gradients`).
    """
    search_settings, learn = settings.explore.search, settings.learn
    search = search_settings.method
    if not settings.explore.is_search or learn.method != "credit":
        return []
    is_by_outcomes = search not in BY_VALUE or search_settings.value == "rollouts" or (search == "mcts" and search_settings.to_end)
    if not is_by_outcomes:
        return [
            f"explore.search.value {search_settings.value} drops steps of which no answer is scored, which biases the policy gradient "
            "whatever learn.credit is: set explore.search.value to rollouts (of mcts explore.search.to_end to true)"
        ]
    if learn.credit not in STEP_CREDIT:
        return [
            f"explore.search.method {search} gives answers that are not independent, but learn.credit {learn.credit} takes them for "
            "independent ones, which biases the policy gradient: learn.credit difference compares what was drawn at one place"
        ]
    if learn.outcome_coefficient:
        return [
            f"explore.search.method {search} gives answers that are not independent, but learn.outcome_coefficient "
            f"{learn.outcome_coefficient} adds credit that takes them for independent ones, which biases the policy gradient: set it to 0"
        ]
    return []
