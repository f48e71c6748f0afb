"""The passages of an adaptation, written on its solved tasks from the text that was selected.

They are kept one by one in `passages.jsonl` with their sources, what was rejected among them, so that a run that ends in between goes on
where it was.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.explore.prompts import render_prompt, without_control
from etude.knowledge.leaks import Leaks
from etude.knowledge.passages import Knowledge, Writer, Writing, rejected
from etude.knowledge.rarity import Rarity, assignments, together
from etude.knowledge.writers.attempts import attempted
from etude.knowledge.writers.rules import rule_made
from etude.knowledge.writers.settings import PassageWriter
from etude.knowledge.writers.told import asking, told
from etude.randomness import seed_for
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.chat import ready
from etude.recipes.machine import Machine, Place, engine_at
from etude.runs import RunFolder, read_jsonl, write_atomically
from etude.tasks.task import Task
from etude.watching import Watcher


def passages_for(
    settings: AdaptSettings,
    folder: RunFolder,
    tasks: Sequence[Task],
    questions: Mapping[str, str],
    *,
    place: Place,
    model: Any,
    tokenizer: Any,
    room: int,
    watcher: Watcher,
) -> list[str]:
    """The texts of the passages. Raises UserError where none is good enough, and where a server that is to write can't be used."""
    how = settings.writer
    rows = read_jsonl(folder.path / "selection" / "selected.jsonl")
    knowledge = [Knowledge(row.get("heading", ""), row["text"], row["origin"]) for row in rows]
    rarity = Rarity.of([each.text for each in knowledge])
    todo = assignments(together(knowledge, tasks, rarity), how.most_tasks)
    kept = read_jsonl(folder.path / "passages.jsonl")
    write_atomically(folder.path / "passages.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))  # no torn line
    if len(kept) < len(todo):
        if how.how == "rules":
            writer = rule_made(rarity)
        elif how.how == "model":
            writer = told(ready(how, place, settings.machine, asking(todo[0], how.with_answer), settings.seed), how.with_answer)
        else:
            writer = _own(how, place, model, tokenizer, room, settings.machine, rarity, settings.seed)
        leaks = Leaks(questions, settings.selection.leak_share)
        writing = Writing(writer, leaks, settings.selection.similarity, how.min_agreement)
        for row in writing.rows(todo, kept):
            folder.append("passages.jsonl", row)
            kept.append(row)
    left_out = rejected(kept)
    found = [row["text"] for row in kept if "text" in row]
    said = "".join(f", {count:,} left out: {reason}" for reason, count in left_out.items())
    watcher.say(f"passages: {len(found):,} on {len(tasks):,} tasks{said}")
    if not found:
        raise UserError(
            f"no passage came of {len(tasks)} tasks ({left_out}; what was said stands in {folder.path / 'passages.jsonl'}): set "
            "study.tasks_as answers, or another writer, and begin another run"
        )
    return found


def _own(how: PassageWriter, place: Place, model: Any, tokenizer: Any, room: int, machine: Machine, rarity: Rarity, seed: int) -> Writer:
    """A writer of the attempts of the model as it is now."""
    engine = engine_at(place, model, tokenizer, machine)

    def attempts(prompts: Sequence[str]) -> list[list[str]]:
        rendered = [render_prompt(tokenizer, Task(without_control(tokenizer, prompt))) for prompt in prompts]
        fitting = [ids for ids in rendered if len(ids) + how.max_new_tokens <= room]
        sizes: dict[str, Any] = {"num_samples": how.attempts, "max_new_tokens": how.max_new_tokens}
        drawn = seed_for(seed, "attempts", str(fitting))
        found = iter(engine.generate(fitting, sampling=Sampling(temperature=how.temperature), seed=drawn, **sizes) if fitting else [])
        return [[each.text for each in next(found)] if len(ids) + how.max_new_tokens <= room else [] for ids in rendered]

    return attempted(attempts, rarity, how.min_agreement)
