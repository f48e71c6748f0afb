"""The model card of a practised model: what it is made from, how, and how good it is, as a model hub shows it.

Names come from outside (folders, files, families), so they are written as text in which neither HTML nor Markdown means anything; paths of
this machine stay here, a file is called by its name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from etude.evaluation.report.numbers import short_reward
from etude.evaluation.rewards import tells_more
from etude.models import BUNDLED, TINY, describe
from etude.recipes.settings import PracticeSettings

LICENCES = {"smollm2-135m": ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")}
"""Of bundled models: the licence, and the model that they are on the hub."""

_CARD = """---
{head}---

# {recipe}

{base}, practised with etude on {tasks}: {story}. The run's seed is {seed}.

## How good it is

{table}
{known}
## Licence

{licence} Mind those of the tasks' data too.

## Use

Any transformers that loads the base model loads this folder: `AutoModelForCausalLM.from_pretrained(FOLDER)`. `etude.yaml` holds the system
message, the length and the temperature that it practised with.
"""


def write_card(folder: Path, settings: PracticeSettings, result: Mapping[str, Any]) -> None:
    """Write `README.md` into a saved model's folder."""
    (folder / "README.md").write_text(card(settings, result), encoding="utf-8")


def card(settings: PracticeSettings, result: Mapping[str, Any]) -> str:
    """The card of the model that a finished run saved."""
    head, licence = origin(settings.model)
    known = f"\n## What it knew before\n\n{_known(result)}\n" if result.get("retention") else ""
    return _CARD.format(
        head=head,
        recipe=plain(result["recipe"]),
        base=plain(named(settings.model)),
        tasks=plain(_tasks(settings)),
        story=_story(settings),
        seed=result["seed"],
        table=_table(result),
        known=known,
        licence=licence,
    )


def origin(model: str) -> tuple[str, str]:
    """The head of a card of what was made of a model, and a sentence on the licence."""
    licence, base = LICENCES.get(model, (None, model if _is_hub_id(model) else None))
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["etude"]}
    head |= {"base_model": base} if base else {}
    head |= {"license": licence} if licence else {}
    said = f"The base model's is {licence}." if licence else "That of the base model holds."
    return yaml.safe_dump(head, sort_keys=False), said


def _is_hub_id(model: str) -> bool:
    is_local = model in BUNDLED or model == TINY or model.startswith((".", "~")) or Path(model).exists()
    return model.count("/") == 1 and not is_local


def named(model: str) -> str:
    """What a card calls a model."""
    return describe(model) if model in BUNDLED or model == TINY or _is_hub_id(model) else Path(model).name


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
    warm, explore, learn = settings.warm_start, settings.explore, settings.learn
    shown = f"the adaptation {plain(Path(settings.adaptation).stem)}, then " if settings.adaptation else ""
    shown += f"{warm.steps} updates on demonstrations, then " if warm.steps else ""
    if settings.preferences.steps:
        shown += f"{settings.preferences.steps} updates on compared answers ({settings.preferences.loss}), then "
    ways = {
        "credit": f"{learn.credit} credit, {learn.loss} loss",
        "imitation": "imitation of its own right attempts",
        "preference": f"preference among its own attempts, {learn.preference.loss} on pairs by {learn.preference.pairs}",
    }
    how = ways[learn.method]
    parts = " and ".join(settings.feedback_parts)
    scores = {"outcome": "", "random": ", random scores (a control)"}.get(settings.feedback, f", scores by {parts}")
    number = f"{'' if explore.stop_when_decided == 'never' else 'up to '}{explore.num_samples} attempts"
    up_to = "" if settings.budget_tokens is None else "up to "
    until = "" if settings.budget_tokens is None else f", until {settings.budget_tokens:,} tokens were sampled"
    if explore.rationalise:
        number += ", and as many again with the answer shown where none is right"
    return f"{shown}{up_to}{settings.steps} steps of {explore.tasks_per_step} tasks with {number} each ({how}{scores}){until}"


def _table(result: Mapping[str, Any]) -> str:
    has_rewards = any(map(tells_more, result["evaluation"]))
    name, rule = (" mean reward (95 %) |", "---|") if has_rewards else ("", "")
    lines = [f"| suite | model | greedy accuracy (95 %) |{name} sampled | n |", f"|---|---|---|{rule}---|---|"]
    for row in result["evaluation"]:
        accuracy = f"{row['accuracy']:.1%} [{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
        sampled = f"{row['sampled_accuracy']:.1%}" if row.get("sampled_accuracy") is not None else ""
        reward = f" {_reward(row)} |" if has_rewards else ""
        lines.append(f"| {plain(row['suite'])} | {row['model'].replace('_', ' ')} | {accuracy} |{reward} {sampled} | {row['n']} |")
    for row in {row["suite"]: row for row in result["evaluation"]}.values():
        suite, baselines = row["suite"], row["baselines"]
        best = max(baselines, key=lambda name: baselines[name], default=None)
        if best is not None:
            rule, cells = plain(best.replace("_", " ")), " | | |" if has_rewards else " | |"
            lines.append(f"| {plain(suite)} | best trivial rule: {rule} | {baselines[best]:.1%} |{cells}")
        rewards = row.get("baseline_rewards") or {}
        best = max(rewards, key=lambda name: rewards[name], default=None)
        if has_rewards and best is not None:
            rule = plain(best.replace("_", " "))
            lines.append(f"| {plain(suite)} | best trivial rule by reward: {rule} | | {short_reward(rewards[best])} | | |")
    return "\n".join(lines)


def _reward(row: Mapping[str, Any]) -> str:
    """The mean reward with its interval; nothing where no answer has a score."""
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


def plain(value: str) -> str:
    """A name as plain text in Markdown: on one line, with what could mean something escaped."""
    line = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", line)
