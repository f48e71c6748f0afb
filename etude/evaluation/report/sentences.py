"""Sentences of the page: the effect of practice, and caveats of the numbers."""

import re
from collections.abc import Mapping
from typing import Any

from etude.evaluation.report.number_format import (
    FIXED_SPACE,
    MISSING,
    THIN_SPACE,
    interval,
    is_number,
    p_value,
    percent,
    plain,
    points,
    points_interval,
    reward,
    reward_change,
    reward_change_interval,
)
from etude.evaluation.report.progress import Progress
from etude.evaluation.report.run_folder import MODELS, PHASES, Run
from etude.evaluation.report.tables import baseline_rewards_of, baselines_of
from etude.evaluation.rewards import leads_with_reward, tells_more
from etude.renamed import renamed_value


def summary(run: Run) -> str:
    """Summarise the effect of practice on greedy accuracy in a sentence with n, interval and p.

    A second sentence is on the mean reward if it differs from accuracy. If accuracy can't distinguish the models
    (`etude.evaluation.rewards.leads_with_reward`), the sentence is only on the mean reward.
    """
    found = {(row.get("suite"), row.get("model")): row for row in run.rows}
    for suite in dict.fromkeys(row.get("suite") for row in run.rows):
        after = found.get((suite, "practice"))
        first = next((model for model in ("preference", "warm_start", "base") if (suite, model) in found), None)
        if after is None or first is None:
            continue
        test = next(
            (t for t in run.result.get("paired") or () if (t.get("suite"), t.get("first"), t.get("second")) == (suite, first, "practice")),
            None,
        )
        if leads_with_reward(found[suite, first], after):
            return _by_reward(str(suite), MODELS[first], found[suite, first], after, test)
        rewards = _also_by_reward(found[suite, first], after, test)
        start, end = percent(found[suite, first].get("accuracy")), percent(after.get("accuracy"))
        if test is None:
            return f"Greedy accuracy on {suite} went from {start} ({MODELS[first]}) to {end} (practice), without a paired test.{rewards}"
        return (
            f"Practice {_verb(test)} greedy accuracy on {suite}: from {start} ({MODELS[first]}) to {end}, "
            f"{points(test.get('difference'))} points, "
            f"95{THIN_SPACE}% interval {points_interval(test.get('difference_low'), test.get('difference_high'))}, "
            f"n{FIXED_SPACE}={FIXED_SPACE}{plain(test.get('n'))}, p{FIXED_SPACE}{p_value(test.get('p_value'), relation=True)}.{rewards}"
        )
    return _adapted(run) or _progress(run)


def _by_reward(suite: str, first: str, before: Mapping[str, Any], after: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    """Summarise the effect on the mean reward, if accuracy can't distinguish the models."""
    start, end = reward(before.get("mean_reward")), reward(after.get("mean_reward"))
    right = f"greedy accuracy is {percent(after.get('accuracy'))} before and after, so it can't show a change"
    if not test or not is_number(test.get("reward_difference")):
        return f"The mean reward on {suite} went from {start} ({first}) to {end} (practice), without a paired test; {right}."
    verb = _verb({"p_value": test.get("reward_p_value"), "difference": test["reward_difference"]})
    greedy = (
        f"Practice {verb} the mean reward of greedy answers on {suite}: from {start} ({first}) to {end}, {_reward_test(test)}; {right}."
    )
    return greedy + _of_sampled(before, after, test)


def _also_by_reward(before: Mapping[str, Any], after: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    """Write a sentence on mean rewards if they differ from accuracy; else return ""."""
    if not (tells_more(before) or tells_more(after)):
        return ""
    tested = f", {_reward_test(test)}" if test and is_number(test.get("reward_difference")) else ""
    start, end = reward(before.get("mean_reward")), reward(after.get("mean_reward"))
    greedy = f" The mean reward of these answers went from {start} to {end}{tested}."
    return greedy + _of_sampled(before, after, test)


def _of_sampled(before: Mapping[str, Any], after: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    """Write a sentence on the mean reward of sampled answers, which practice optimises; "" if none were sampled."""
    start, end = before.get("sampled_mean_reward"), after.get("sampled_mean_reward")
    if not (is_number(start) and is_number(end)):
        return ""
    tested = f", {_reward_test(test, 'sampled_')}" if test and is_number(test.get("sampled_reward_difference")) else ""
    return f" That of sampled answers went from {reward(start)} to {reward(end)}{tested}."


def _reward_test(test: Mapping[str, Any], kind: str = "") -> str:
    difference, low, high, n, p = (
        test.get(f"{kind}reward_{name}") for name in ("difference", "difference_low", "difference_high", "n", "p_value")
    )
    return (
        f"{reward_change(difference)}, 95{THIN_SPACE}% interval {reward_change_interval(low, high)}, "
        f"n{FIXED_SPACE}={FIXED_SPACE}{plain(n)}, p{FIXED_SPACE}{p_value(p, relation=True)}"
    )


def _adapted(run: Run) -> str:
    """Summarise the effect of an adaptation on the domain's questions; "" for other runs."""
    change = next((row for row in run.result.get("changes") or () if row.get("part") == "choices"), None)
    if change is None:
        return ""
    return (
        f"Adaptation {_verb(change)} the accuracy on {change.get('name')}, by likelihood: from {percent(change.get('before'))} to "
        f"{percent(change.get('after'))}, {points(change.get('difference'))} points, 95{THIN_SPACE}% interval "
        f"{points_interval(change.get('low'), change.get('high'))}, n{FIXED_SPACE}={FIXED_SPACE}{plain(change.get('n'))}, "
        f"p{FIXED_SPACE}{p_value(change.get('p_value'), relation=True)}."
    )


def _progress(run: Run) -> str:
    """Describe a run without a comparison so far: its last step, or its measurements."""
    steps = [row for row in run.steps if row.get("phase") in PHASES and is_number(row.get("step"))]
    last = next((row for row in reversed(steps) if run.is_adaptation or row["phase"] == "practice"), None)
    if last is not None:
        name = f"Adaptation ({PHASES[last['phase']].lower()})" if run.is_adaptation else "Practice"
        return f"{name} has reached step {last['step']}; there is no evaluation before and after it to compare yet."
    if run.rows:
        row = run.rows[-1]
        rewards = f" The mean reward is {reward(row.get('mean_reward'))}." if tells_more(row) else ""
        return (
            f"Greedy accuracy on {row.get('suite')} is {percent(row.get('accuracy'))} ({spaced(row.get('model'))}), "
            f"95{THIN_SPACE}% interval {interval(row.get('accuracy_low'), row.get('accuracy_high')) or MISSING}, "
            f"n{FIXED_SPACE}={FIXED_SPACE}{plain(row.get('n'))}.{rewards}"
        )
    return f"{'Adaptation' if run.is_adaptation else 'Practice'} has not taken a step yet, and nothing has been evaluated."


def _verb(test: Mapping[str, Any]) -> str:
    """Choose the verb: `raised` or `lowered` if p < 0.05, else "did not measurably change"."""
    p, difference = test.get("p_value"), test.get("difference")
    if not (is_number(p) and is_number(difference)) or p >= 0.05:
        return "did not measurably change"
    return "raised" if difference > 0 else "lowered"


def remarks_on(run: Run, progress: Progress | None = None) -> list[str]:
    """List caveats of the numbers. The page of a run with its `progress` tells by that whether it is finished."""
    remarks = []
    if not run.is_finished and progress is None:
        remarks.append(f"This run is not finished (status: {run.result.get('status') or 'unknown'}). The page shows what there is so far.")
    for row in run.rows:
        if row.get("model") == "practice":
            remarks += _beside_baselines(row, next((each for each in run.rows if each.get("suite") == row.get("suite")), row))
    collapse = run.result.get("collapse")
    if isinstance(collapse, Mapping):
        done = {"stop": "practice was stopped", "rollback": "practice was rolled back and stopped"}
        ended = done.get(str(renamed_value("callbacks.collapse.action", collapse.get("action"))), "practice continued")
        remarks.append(f"Signs of a {collapse.get('words')}; {ended}.")
    if run.notes and not (progress and progress.may_be_torn):
        remarks.append(f"Files: {'; '.join(run.notes)}.")
    return remarks


def _beside_baselines(row: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """Warn if a trivial baseline does as well on the suite; `first` is the row of its first model."""
    is_reward = leads_with_reward(first, row)
    found, name, write = (baseline_rewards_of(row), "mean_reward", reward) if is_reward else (baselines_of(row), "accuracy", percent)
    best, reached = max(found.values(), default=None), row.get(name)
    if best is None or not is_number(reached) or best < reached:
        return []
    by = "a mean reward of " if is_reward else ""
    return [f"On {row.get('suite')} a trivial baseline ({by}{write(best)}) does at least as well as practice ({write(reached)})."]


def spaced(name: Any) -> str:
    """Replace underscores by spaces: warm_start -> warm start."""
    return re.sub(r"[_\s]+", " ", str(name)).strip()
