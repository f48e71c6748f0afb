"""The card of an adapted model: what it read, in which order, and what it knows now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from etude.cards.head import head_of, origin
from etude.cards.practised import licence_in_words, named, plain
from etude.cards.use import PromptExample, usage_section
from etude.recipes.adapt_settings import AdaptSettings

_CARD = """---
{head}---

# {recipe}

{base}, adapted with etude: {tokens:,} tokens, {stages}, of {text} and {general}{tasks}. The run's seed is {seed}.

## What it knows

{table}

Questions are answered by likelihood (`said`: in words, F1); intervals (95 %) are paired by question.

## Licence

{licence} Mind those of the texts too.

## Use

{use}

`etude practice` goes on from it: `--model FOLDER`.
"""


def write_adapted_cards(run: Path, settings: AdaptSettings, result: Mapping[str, Any], tokenizer: Any) -> None:
    """Write `README.md` into the folder of an adapted model, and of its adapters where it has such."""
    template: Literal["base", "none"] = "base" if tokenizer.chat_template else "none"
    asked = PromptExample("QUESTION", max_new_tokens=100, template=template)
    (run / "model" / "README.md").write_text(adapted_card(settings, result, asked), encoding="utf-8")
    if (run / "adapter").is_dir():
        (run / "adapter" / "README.md").write_text(adapted_card(settings, result, asked, is_adapter=True), encoding="utf-8")


def adapted_card(settings: AdaptSettings, result: Mapping[str, Any], asked: PromptExample, *, is_adapter: bool = False) -> str:
    """The card of the model that a finished adaptation saved, or of its adapters."""
    _, licence = origin(settings.model)
    library, datasets = (
        ("peft" if is_adapter else "transformers"),
        [settings.corpus.dataset, settings.general.dataset, settings.tasks.dataset],
    )
    selected = result["selection"]["selected"]
    tasks = {"answers": "solved tasks", "passages": f"passages on solved tasks (by {settings.writer.how})"}[settings.study.tasks_as]
    return _CARD.format(
        head=head_of(result["recipe"], settings.model, library=library, datasets=datasets),
        recipe=plain(result["recipe"]),
        base=plain(named(settings.model)),
        tokens=settings.study.tokens,
        stages=" then ".join(stage["stage"] for stage in result["stages"]),
        text=f"{selected['documents']:,} documents ({plain(_places(settings))}, selection: {settings.selection.method})",
        general="general text" if settings.study.replay_share else "no general text",
        tasks=f", with {tasks}" if settings.study.needs_tasks else "",
        seed=result["seed"],
        table=_table(result["changes"]),
        licence=licence_in_words(licence),
        use=usage_section(asked, is_adapter=is_adapter),
    )


def _places(settings: AdaptSettings) -> str:
    corpus = settings.corpus
    return ", ".join(Path(place).name for place in (corpus.path or [corpus.dataset or "text"]))


def _table(changes: list[Mapping[str, Any]]) -> str:
    lines = ["| part | asked | before | after | change | n |", "|---|---|---|---|---|---|"]
    for change in changes:
        if "difference" in change:
            numbers = [f"{change['before']:.1%}", f"{change['after']:.1%}"]
            points = [100 * change[name] for name in ("difference", "low", "high")]
            numbers.append("{:+.1f} points [{:+.1f}, {:+.1f}]".format(*points))
        else:
            numbers = [f"{change['before']:.3f}", f"{change['after']:.3f}"]
            numbers.append(f"{change['nats']:+.3f} nats [{change['nats_low']:+.3f}, {change['nats_high']:+.3f}]")
        lines.append(f"| {change['part']} | {plain(change['name'])} | {' | '.join(numbers)} | {change['n']} |")
    return "\n".join(lines)
