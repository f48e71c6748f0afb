"""The model card of an adaptation: what it read, in which order, and its domain knowledge before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.cards.model_card import ModelCard, escaped
from etude.recipes.adapt_settings import AdaptSettings


def adapt_card(settings: AdaptSettings, result: Mapping[str, Any]) -> ModelCard:
    """Return the card of the model that a finished adaptation saved."""
    selected, study = result["selection"]["selected"], settings.study
    stages = " then ".join(stage["stage"] for stage in result["stages"])
    text = f"{selected['documents']:,} documents ({escaped(_corpus_names(settings))}, selection: {settings.selection.method})"
    general = "general text" if study.replay_share else "no general text"
    tasks = {"answers": "solved tasks", "passages": f"passages on solved tasks (by {settings.writer.how})"}[study.task_format]
    return ModelCard(
        recipe=result["recipe"],
        seed=result["seed"],
        base=settings.model,
        story=(
            f"adapted with etude: {study.tokens:,} tokens, {stages}, of {text} and {general}"
            f"{f', with {tasks}' if study.needs_tasks else ''}."
        ),
        results=(
            f"## Domain knowledge\n\n{_table(result['changes'])}\n\n"
            "Questions are answered by likelihood (`said`: generated answers, F1); 95 % intervals are paired by question."
        ),
        data="the texts",
        closing="`etude practice` continues from it: `--model FOLDER`.",
        datasets=[settings.corpus.dataset, settings.general.dataset, settings.tasks.dataset],
    )


def _corpus_names(settings: AdaptSettings) -> str:
    corpus = settings.corpus
    return ", ".join(Path(path).name for path in (corpus.path or [corpus.dataset or "text"]))


def _table(changes: list[Mapping[str, Any]]) -> str:
    lines = ["| part | data | before | after | change | n |", "|---|---|---|---|---|---|"]
    for change in changes:
        if "difference" in change:
            numbers = [f"{change['before']:.1%}", f"{change['after']:.1%}"]
            points = [100 * change[name] for name in ("difference", "low", "high")]
            numbers.append("{:+.1f} points [{:+.1f}, {:+.1f}]".format(*points))
        else:
            numbers = [f"{change['before']:.3f}", f"{change['after']:.3f}"]
            numbers.append(f"{change['nats']:+.3f} nats [{change['nats_low']:+.3f}, {change['nats_high']:+.3f}]")
        lines.append(f"| {change['part']} | {escaped(change['name'])} | {' | '.join(numbers)} | {change['n']} |")
    return "\n".join(lines)
