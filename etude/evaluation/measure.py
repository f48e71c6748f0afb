"""Measures a model on a suite of tasks: greedy and sampled accuracy, pass@k, mean reward, parsable answers.

Accuracy is the share of greedy answers that the verifier accepts (`Reward.is_right`), with a Wilson interval; answers without a score are
counted and are not correct. The mean reward (`etude.evaluation.rewards`) is over the scored answers. pass@k is the unbiased estimate of
Chen et al. 2021 (arXiv 2107.03374, eq. 1) on `pass_n` tasks of the suite (`sampled_places`); `pass_curve` has it for smaller k, too.
majority@k is the accuracy of the most frequent answer of the same k samples (`etude.tasks.votes`; self-consistency, Wang et al. 2022, arXiv
2203.11171): the accuracy of a model that only became more certain of its own answers. `greedy_on_sampled` is the greedy accuracy on the
tasks that are sampled, to compare with. `sound` is the share of sound answers among those that the verifier accepts, if a judge demands
both (`etude.callbacks.soundness_guard`).

A repeated question gets its own samples and counts in `repeated`. Its greedy answer is the same, so intervals, which treat it as another
question, are too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import MappingProxyType
from typing import Any

from etude.engine.protocols import Engine
from etude.engine.sampling import GREEDY, Sampling
from etude.evaluation.calibration import expected_calibration_error, risk_coverage
from etude.evaluation.rewards import compare_rewards, is_item_right, leads_with_reward, mean_score, reward_row
from etude.evaluation.statistics import paired_test, pass_at_k, pass_curve, wilson_interval
from etude.evaluation.text_counts import count_text
from etude.evaluation.thought_budgets import measure_thought_budgets
from etude.randomness import seed_for
from etude.rewards.unscored import check_scored, commonest_reason
from etude.rollouts.order import visits
from etude.rollouts.thought import Thoughts
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.votes import majority, vote

Verify = Callable[[Sequence[tuple[str, Task]]], list[Reward]]


@dataclass(frozen=True)
class Suite:
    """The tasks of one measurement, under a name."""

    name: str
    tasks: Sequence[Task]
    prompts: Sequence[tuple[int, ...]]
    baselines: dict[str, float]
    """Accuracy of the trivial baselines on these tasks."""
    baseline_rewards: dict[str, float] = field(default_factory=dict)
    """Mean reward of the baselines that answer every task."""


@dataclass(frozen=True)
class Measurement:
    """The settings of a measurement."""

    max_new_tokens: int
    pass_n: int
    num_samples: int
    sampling: Sampling
    seed: int
    thought: Thoughts = field(default_factory=Thoughts)
    max_unscored_share: float = 0.1
    """The largest share of answers without a score (`etude.rewards.unscored`)."""


@dataclass(frozen=True)
class OtherAnswer:
    """An answer to a task from search or from a decoding method."""

    text: str | None
    """None: no answer."""
    sampled_tokens: int
    confidence: float | None = None
    """In [0, 1]; None if the method has no confidence."""


def measure(
    engine: Engine,
    suite: Suite,
    how: Measurement,
    judge: Verify,
    *,
    ways: Mapping[str, Callable[[Suite], Sequence[OtherAnswer]]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measure a suite and return `{"suite", "row", "items"}`: its metrics, and every greedy answer with its score.

    Each of the `ways` answers every task by another method. Its accuracy is reported with the paired gain over greedy decoding. For its
    answers, also their lengths (`etude.evaluation.text_counts`, and those of greedy answers to the same tasks) and the calibration of its
    confidence are reported. A missing answer is not correct. For thoughts of fixed lengths (`etude.evaluation.thought_budgets`) the row has
    a list of rows as `thought`, and each item the scores of its answers.

    Raises `TooManyUnscored` if more answers of one kind have no score than `how` allows.
    """
    judge = _demanding(judge, how.max_unscored_share, f"measuring {suite.name}")
    greedy = [found[0] for found in engine.generate(suite.prompts, max_new_tokens=how.max_new_tokens, sampling=GREEDY)]
    rewards = judge([(completion.text, task) for completion, task in zip(greedy, suite.tasks, strict=True)])
    scores = [reward.is_right for reward in rewards]
    n, right = len(rewards), sum(scores)
    places = sampled_places(suite.tasks, how.pass_n if how.num_samples else 0)
    sampled, sampled_rewards = _sampled(engine, suite, how, judge, places)
    if places:
        sampled["greedy_on_sampled"] = sum(scores[place] for place in places) / len(places)
    low, high = wilson_interval(right, n)
    texts = [completion.text for completion in greedy]
    others = [_other_way(name, suite, judge, answer(suite), scores, texts) for name, answer in ways.items()]
    row = {
        "suite": suite.name,
        "n": n,
        "accuracy": right / n,
        "accuracy_low": low,
        "accuracy_high": high,
        **reward_row(rewards),
        **sampled,
        **{name: value for own in others for name, value in own.row.items()},
        "parsable": _mean_part(rewards, "parsable"),
        **({"sound": sound} if (sound := _mean_part(rewards, "sound")) is not None else {}),
        "mean_tokens": sum(len(completion.tokens) for completion in greedy) / n,
        "truncated": sum(completion.finish == "length" for completion in greedy) / n,
        "unscored": sum(reward.score is None for reward in rewards),
        "repeated": n - len({task.key for task in suite.tasks}),
        **({"unscored_reason": reason} if (reason := commonest_reason(rewards)) else {}),
        "right_at": rewards[0].right_at,
        "baseline_constant": suite.baselines.get("most_frequent"),
        "baselines": suite.baselines,
        "baseline_rewards": suite.baseline_rewards,
    }
    items: list[dict[str, Any]] = [
        {"task": task.key, "question": task.question, "answer": task.answer, "text": completion.text, **_judged(reward)}
        for task, completion, reward in zip(suite.tasks, greedy, rewards, strict=True)
    ]
    for place, mean in zip(places, sampled_rewards, strict=True):
        items[place]["sampled_reward"] = mean
    for own in others:
        items = [{**item, own.name: answer} for item, answer in zip(items, own.answers, strict=True)]
    if how.thought.budgets:
        row["thought"], thought = measure_thought_budgets(engine, suite.tasks, suite.prompts, how.thought, judge)
        items = [{**item, "thought": answers} for item, answers in zip(items, thought, strict=True)]
    return {"suite": suite.name, "row": row, "items": items}


def sampled_places(tasks: Sequence[Task], n: int) -> list[int]:
    """Return the places of the n tasks that are sampled, in order: by a hash of their keys, since files may be sorted.

    >>> sampled_places([Task("a"), Task("b"), Task("c")], 2)
    [1, 2]
    """
    ranks = sorted(range(len(tasks)), key=lambda place: (seed_for("sampled", tasks[place].key), place))
    return sorted(ranks[:n])


def _sampled(
    engine: Engine, suite: Suite, how: Measurement, judge: Verify, places: Sequence[int]
) -> tuple[dict[str, Any], list[float | None]]:
    """Return the metrics of sampled answers to the tasks at these places, and the mean reward of each."""
    tasks, prompts = [suite.tasks[place] for place in places], [suite.prompts[place] for place in places]
    if not tasks:
        return {"pass_n": 0}, []
    named = [(task.key, [again] if again else []) for task, again in zip(tasks, visits(task.key for task in tasks), strict=True)]
    keys = [[seed_for(how.seed, "evaluation", key, sample, *again) for sample in range(how.num_samples)] for key, again in named]
    found = engine.generate(prompts, num_samples=how.num_samples, max_new_tokens=how.max_new_tokens, sampling=how.sampling, keys=keys)
    rewards = judge([(completion.text, task) for task, group in zip(tasks, found, strict=True) for completion in group])
    k = how.num_samples
    rows = [rewards[start : start + k] for start in range(0, len(rewards), k)]
    right = [[reward.is_right for reward in row] for row in rows]
    passed = [pass_at_k(k, sum(row), k) for row in right]
    votes = [[vote(completion.text, task) for completion in group] for task, group in zip(tasks, found, strict=True)]
    voted = [row[majority(own)] for row, own in zip(right, votes, strict=True)]
    low, high = wilson_interval(round(sum(passed)), len(passed))  # k of k samples: every value is 0 or 1
    row = {
        "sampled_accuracy": sum(map(sum, right)) / len(rewards),
        **reward_row(rewards, rows, "sampled_"),
        "sampled_n": len(rewards),
        "sampled_unscored": sum(reward.score is None for reward in rewards),
        f"pass_at_{k}": sum(passed) / len(passed),
        f"pass_at_{k}_low": low,
        f"pass_at_{k}_high": high,
        "pass_curve": {str(fewer): value for fewer, value in pass_curve(right).items()},
        f"majority_at_{k}": sum(voted) / len(voted),
        "pass_n": len(tasks),
    }
    return row, [mean_score(own) for own in rows]


_NOT_GIVEN = Reward(0.0, right_at=1.0)
"""The reward of a missing answer: not correct, and excluded from mean rewards."""


@dataclass(frozen=True)
class _Way:
    """The results of another way of answering."""

    name: str
    row: dict[str, Any]
    answers: list[dict[str, Any]]


def _other_way(name: str, suite: Suite, judge: Verify, answers: Sequence[OtherAnswer], greedy: Sequence[bool], said: Sequence[str]) -> _Way:
    """Measure another way of answering; `greedy`: which greedy answers are correct, `said`: their texts."""
    given = [(answer.text, task) for answer, task in zip(answers, suite.tasks, strict=True) if answer.text is not None]
    judged = judge(given) if given else []
    rewards = iter(judged)
    said_of = [_NOT_GIVEN if answer.text is None else next(rewards) for answer in answers]
    n, right = len(said_of), [reward.is_right for reward in said_of]
    low, high = wilson_interval(sum(right), n)
    test = paired_test(greedy, right)
    row = {
        "accuracy": sum(right) / n,
        "accuracy_low": low,
        "accuracy_high": high,
        **reward_row(judged),
        "tokens": sum(answer.sampled_tokens for answer in answers) / n,
        "not_given": (n - len(given)) / n,
        "gain": test.difference,
        "gain_low": test.difference_low,
        "gain_high": test.difference_high,
    }
    row |= _said_by([text for text, _ in given])
    same = [text for text, answer in zip(said, answers, strict=True) if answer.text is not None]
    row |= {f"greedy_{kind}": value for kind, value in _said_by(same).items()}
    sure = [(answer.confidence, each) for answer, each in zip(answers, right, strict=True) if answer.text is not None]
    known = [(confidence, each) for confidence, each in sure if confidence is not None]
    if known:
        confidences, outcomes = [confidence for confidence, _ in known], [each for _, each in known]
        row["ece"] = expected_calibration_error(confidences, outcomes)
        row["aurc"] = sum(risk_coverage(confidences, outcomes)) / len(known)
    own = [
        {"text": answer.text, **_judged(reward), "confidence": answer.confidence} for answer, reward in zip(answers, said_of, strict=True)
    ]
    return _Way(name, {f"{name}_{key}": value for key, value in row.items()}, own)


def _said_by(texts: Sequence[str]) -> dict[str, float]:
    """Return the mean counts of the texts."""
    found = [count_text(text) for text in texts]
    return {name: fmean(getattr(each, name) for each in found) for name in ("words", "details")} if found else {}


def _judged(reward: Reward) -> dict[str, Any]:
    return {"score": reward.score, "right": None if reward.score is None else reward.is_right}


def _demanding(judge: Verify, max_unscored_share: float, where: str) -> Verify:
    """Wrap a verifier so that it raises `TooManyUnscored` if too many pairs of one call have no score."""

    def asked(pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        rewards = judge(pairs)
        check_scored(pairs, rewards, max_unscored_share, where)
        return rewards

    return asked


def _mean_part(rewards: Sequence[Reward], name: str) -> float | None:
    """Return the mean of a part over the rewards that have it, None (not 0) if none has."""
    values = [reward.parts[name] for reward in rewards if name in reward.parts]
    return sum(values) / len(values) if values else None


def compare_measurements(first: str, second: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Compare two measurements of one suite: paired tests of accuracy and of mean rewards (`compare_rewards`).

    `leads` names the metric that distinguishes the models.
    """
    right_before, right_after = (list(map(is_item_right, page["items"])) for page in (before, after))
    test = {"suite": before["suite"], "first": first, "second": second, **vars(paired_test(right_before, right_after))}
    leads = "mean_reward" if leads_with_reward(before["row"], after["row"]) else "accuracy"
    return {**test, **compare_rewards(before["items"], after["items"]), "leads": leads}
