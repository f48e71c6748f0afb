"""Trivial baselines: accuracies of simple rules that do not understand a task. A report shows them with every accuracy.

| name | answer |
|---|---|
| `most_frequent` | the most frequent answer of training |
| `nearest_question` | the answer of the most similar training question (`etude.evaluation.nearest_question`) |
| `same_wording` | the most frequent answer of training questions that differ in names and numbers only (`etude.evaluation.same_wording`) |
| `first_number`, `last_number`, `largest_number`, `smallest_number` | that number of the question |
| `sum`, `difference`, `product` | of the question's numbers, where it has two or more (difference: largest minus smallest) |
| `list_as_given`, `list_reversed` | the question's list, as given or reversed, in the gold answer's format |
| `first_choice` | A |

A rule counts as wrong on tasks to which it does not apply.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import prod
from statistics import fmean
from typing import NamedTuple

from etude.evaluation.nearest_question import nearest_answers
from etude.evaluation.same_wording import same_wording_answers
from etude.tasks.answers import parse_list
from etude.tasks.numbers import find_numbers, write_number
from etude.tasks.reward import Reward
from etude.tasks.task import Task

_MOST_NUMBERS = 50
_BRACKETED = re.compile(r"\[[^\[\]\n]{1,5000}\]")
_AFTER_COLON = re.compile(r": ?([^:,\n]{1,80}(?:, ?[^:,\n]{1,80}){1,500})(?:\n|$)")
_COMMAS = re.compile(r"[^\s,]{1,80}(?:, ?[^\s,]{1,80}){2,500}")


def trivial_answers(train_answers: Sequence[str], task: Task) -> dict[str, str]:
    """Return the answer of each applicable rule to a task.

    >>> trivial_answers([], Task("Tom has 3 pens and buys 4. How many?", "7"))["sum"]
    '7'
    """
    answers = _number_rules(task.question) | _list_rules(task)
    if train_answers:
        answers["most_frequent"] = Counter(train_answers).most_common(1)[0][0]
    if task.metadata.get("choices"):
        answers["first_choice"] = "A"
    return answers


class Baselines(NamedTuple):
    """Accuracies and mean rewards of the trivial rules."""

    accuracies: dict[str, float]
    """The share of all tasks that each rule answers correctly, best first."""
    mean_rewards: dict[str, float]
    """The mean reward of each rule with a score on every task, best first. Other rules would be averaged over other tasks than a model.
    """


def trivial_baselines(
    train: Sequence[Task], tasks: Sequence[Task], judge: Callable[[Sequence[tuple[str, Task]]], list[Reward]]
) -> Baselines:
    """Evaluate every rule on the tasks; `judge` scores (text, task) pairs.

    Rules may use the answers of `train`. A rule that applies to no task is skipped. An answer without a score counts as wrong.
    """
    known = [task.answer for task in train if task.answer is not None]
    most_frequent = [Counter(known).most_common(1)[0][0]] if known else []
    attempts = [(rule, answer, task) for task in tasks for rule, answer in trivial_answers(most_frequent, task).items()]
    for rule, answers in (("nearest_question", nearest_answers(train, tasks)), ("same_wording", same_wording_answers(train, tasks))):
        attempts += [(rule, answer, task) for task, answer in zip(tasks, answers, strict=True) if answer is not None]
    rewards = judge([(answer, task) for _, answer, task in attempts])
    by_rule: dict[str, list[Reward]] = {}
    for (rule, _, _), reward in zip(attempts, rewards, strict=True):
        by_rule.setdefault(rule, []).append(reward)
    right = {rule: sum(reward.is_right for reward in own) for rule, own in by_rule.items()}
    scores = {rule: [reward.score for reward in own if reward.score is not None] for rule, own in by_rule.items()}
    means = {rule: fmean(own) for rule, own in scores.items() if len(own) == len(tasks)}
    return Baselines(
        {rule: count / len(tasks) for rule, count in sorted(right.items(), key=lambda item: -item[1])},
        dict(sorted(means.items(), key=lambda item: -item[1])),
    )


def _number_rules(question: str) -> dict[str, str]:
    values = [number.value for number in find_numbers(question)]
    if not values:
        return {}
    found = {"first_number": values[0], "last_number": values[-1], "largest_number": max(values), "smallest_number": min(values)}
    zero = Fraction(0)
    if 2 <= len(values) <= _MOST_NUMBERS:
        found |= {"sum": sum(values, zero), "difference": max(values) - min(values), "product": prod(values, start=zero + 1)}
    return {rule: write_number(value) for rule, value in found.items()}


def _list_rules(task: Task) -> dict[str, str]:
    """Return the question's list as given and reversed, if the gold answer is a list."""
    gold = None if task.answer is None else parse_list(task.answer.strip())
    if gold is None and (task.answer is None or "," not in task.answer):
        return {}
    items = _first_list(task.question)
    if not items:
        return {}
    return {"list_as_given": _written(items, task.answer or "", gold), "list_reversed": _written(items[::-1], task.answer or "", gold)}


def _first_list(question: str) -> list[str]:
    """Return the items of the question's first list in brackets or after a colon, or of its first sequence with at least two commas."""
    found = [match for pattern in (_BRACKETED, _AFTER_COLON) if (match := pattern.search(question))]
    match = min(found, key=lambda match: match.start()) if found else _COMMAS.search(question)
    if match is None:
        return []
    inside = match[0].strip(":[] \n")
    return [item.strip().strip("'\"").rstrip(".") for item in inside.split(",") if item.strip()]


def _written(items: Sequence[str], answer: str, gold: list[object] | None) -> str:
    """Format items like the gold answer: a list of texts or numbers in Python's or JSON's quotes, or joined by commas."""
    if gold is None:
        return (", " if ", " in answer else ",").join(items)
    if not all(isinstance(item, str) for item in gold):
        return f"[{', '.join(items)}]"
    return str(list(items)) if "'" in answer else json.dumps(list(items), ensure_ascii=False)
