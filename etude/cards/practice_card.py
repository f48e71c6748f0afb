"""The model card of practice: its tasks and updates, and the accuracies before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.cards.hub_metadata import eval_results
from etude.cards.model_card import ModelCard, escaped
from etude.cards.usage import LONGEST, PromptExample
from etude.evaluation.report.number_format import short_reward
from etude.evaluation.rewards import tells_more
from etude.tasks.task import Task
from etude.training.generation_config import generation_config_of
from etude.training.saving import told
from etude.training.settings import PracticeSettings


def write_cards(run: Path, settings: PracticeSettings, result: Mapping[str, Any], tasks: Sequence[Task], tokenizer: Any) -> None:
    """Write the cards of a run's model and adapters; the example question is one of `tasks`."""
    practice_card(settings, result).write(run, prompt_example(settings, tasks, tokenizer))


def practice_card(settings: PracticeSettings, result: Mapping[str, Any]) -> ModelCard:
    """Build the card of the model that a finished run saved."""
    known = f"\n\n## General knowledge\n\n{_known(result)}" if result.get("retention") else ""
    return ModelCard(
        recipe=result["recipe"],
        seed=result["seed"],
        base=settings.model,
        story=f"practised with etude on {escaped(_tasks(settings))}: {_story(settings)}.",
        results=f"## Results\n\n{_table(result)}{known}",
        data="the tasks' data",
        closing="`etude.yaml` holds the system message, the instruction, the length and the sampling that it practised with.",
        datasets=[settings.tasks.dataset],
        evaluations=list(eval_results(result["evaluation"], settings.tasks.dataset)),
    )


def prompt_example(settings: PracticeSettings, tasks: Sequence[Task], tokenizer: Any) -> PromptExample:
    """Build the prompt example of a run that began with this tokenizer; its question is the first short one of a single message."""
    how, saved = generation_config_of(settings), told(tokenizer, settings).chat_template
    questions = (
        task.question for task in tasks if isinstance(task.prompt, str) or len(task.prompt) == 1 + (task.prompt[0]["role"] == "system")
    )
    return PromptExample(
        question=next((question for question in questions if len(question) <= LONGEST), "QUESTION"),
        max_new_tokens=how["max_new_tokens"],
        system=how["system"],
        instruction=how["instruction"],
        template="base" if tokenizer.chat_template else "run" if saved else "none",
    )


def _tasks(settings: PracticeSettings) -> str:
    tasks = settings.tasks
    if tasks.path:
        return ", ".join(Path(path).name for path in tasks.path)
    if tasks.function:
        return Path(tasks.function).name
    dataset = tasks.dataset or "tasks"
    is_local = dataset.startswith(("/", ".", "~")) or Path(dataset).exists()
    return tasks.family or (Path(dataset).name if is_local else dataset)


def _story(settings: PracticeSettings) -> str:
    warm, rollout, learn = settings.warm_start, settings.rollout, settings.learn
    shown = f"the adaptation {escaped(Path(settings.adaptation).stem)}, then " if settings.adaptation else ""
    shown += f"{warm.steps} updates on demonstrations, then " if warm.steps else ""
    if settings.preferences.steps:
        shown += f"{settings.preferences.steps} updates on compared answers ({settings.preferences.loss}), then "
    ways = {
        "policy_gradient": f"{learn.advantage} advantages, {learn.loss} loss",
        "imitation": "imitation of its own right attempts",
        "preference": f"preference among its own attempts, {learn.preference.loss} on pairs by {learn.preference.pairs}",
    }
    how = ways[learn.method]
    parts = " and ".join(settings.reward_parts)
    scores = {"verifier": "", "random": ", random scores (a control)"}.get(settings.reward, f", scores by {parts}")
    number = f"{'' if rollout.early_stop_groups == 'never' else 'up to '}{rollout.num_samples} attempts"
    told = "".join(f", {phrase}" for own in settings.callbacks.values() if (phrase := getattr(own, "phrase", "")))
    return f"{shown}{settings.steps} steps of {rollout.tasks_per_step} tasks with {number} each ({how}{scores}){told}"


def _table(result: Mapping[str, Any]) -> str:
    has_rewards = any(map(tells_more, result["evaluation"]))
    name, rule = (" mean reward (95 %) |", "---|") if has_rewards else ("", "")
    lines = [f"| suite | model | greedy accuracy (95 %) |{name} sampled | n |", f"|---|---|---|{rule}---|---|"]
    for row in result["evaluation"]:
        accuracy = f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
        sampled = f"{row['sampled_accuracy']:.1%}" if row.get("sampled_accuracy") is not None else ""
        reward = f" {_reward(row)} |" if has_rewards else ""
        lines.append(f"| {escaped(row['suite'])} | {row['model'].replace('_', ' ')} | {accuracy} |{reward} {sampled} | {row['n']} |")
    for row in {row["suite"]: row for row in result["evaluation"]}.values():
        suite, baselines = row["suite"], row["baselines"]
        best = max(baselines, key=lambda name: baselines[name], default=None)
        if best is not None:
            rule, cells = escaped(best.replace("_", " ")), " | | |" if has_rewards else " | |"
            lines.append(f"| {escaped(suite)} | best trivial rule: {rule} | {baselines[best]:.1%} |{cells}")
        rewards = row.get("baseline_rewards") or {}
        best = max(rewards, key=lambda name: rewards[name], default=None)
        if has_rewards and best is not None:
            rule = escaped(best.replace("_", " "))
            lines.append(f"| {escaped(suite)} | best trivial rule by reward: {rule} | | {short_reward(rewards[best])} | | |")
    return "\n".join(lines)


def _reward(row: Mapping[str, Any]) -> str:
    """Format the mean reward with its interval; "" if no answer has a score."""
    if row.get("mean_reward") is None:
        return ""
    value, low, high = (short_reward(row[f"mean_reward{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _known(result: Mapping[str, Any]) -> str:
    lines = ["| model | perplexity of a text | multiple-choice questions right (95 %) | n |", "|---|---|---|---|"]
    for row in result["retention"]:
        perplexity = f"{row['perplexity']:.2f}" if "perplexity" in row else ""
        low, high = row.get("choice_accuracy_low"), row.get("choice_accuracy_high")
        right = f"{row['choice_accuracy']:.1%} [{low:.1%}, {high:.1%}]" if "choices_n" in row else ""
        lines.append(f"| {row['model'].replace('_', ' ')} | {perplexity} | {right} | {row.get('choices_n', '')} |")
    return "\n".join(lines)
