"""Write the passages of an adaptation, on its solved tasks and the selected text.

They are saved one by one in `passages.jsonl` with their sources, rejected ones included, so that an interrupted run continues where it was.
Assignments without a reply are asked again on resume, until training begins.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from etude.console.reporter import Reporter
from etude.device.machine import Device
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.files import read_jsonl, write_atomically
from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.idf import InverseDocumentFrequency, make_assignments, match_tasks
from etude.knowledge.passages import NO_REPLY, Assignment, Knowledge, PassageBuilder, count_rejections
from etude.knowledge.writers.attempts import Attempts, attempts_writer
from etude.knowledge.writers.llm_writer import build_messages, llm_writer
from etude.knowledge.writers.rules import rules_writer
from etude.knowledge.writers.settings import PassageWriter
from etude.llm_client.model import Messages
from etude.randomness import seed_for
from etude.recipes.adapt_settings import AdaptSettings
from etude.rollouts.prompts import render_prompt, without_control
from etude.tasks.task import Task
from etude.tasks.verifiers import CHEAP
from etude.training.chat_model import check_chat_model, open_chat_model
from etude.training.run_folder import RunFolder

BuildEngine = Callable[[], PrefixEngine]
"""Builds the engine of the adapted model, which may hold a copy of it."""


def check_writer(settings: AdaptSettings, tasks: Sequence[Task], place: Device, run: Path) -> None:
    """Raise UserError if the writer is unavailable but needed, or if the tasks' verifiers cannot compare answers."""
    how = settings.writer
    foreign = next((task for task in tasks if task.verifier not in CHEAP), None)
    if how.how != "rules" and foreign is not None:
        raise UserError(
            f"writer.how {how.how} compares answers by {', '.join(sorted(CHEAP))}, but {foreign.origin or 'a task'} has the verifier "
            f"{foreign.verifier}: set tasks.verifier, or writer.how rules"
        )
    if how.how == "model" and not (run / "passages.jsonl").exists():
        check_chat_model(how, place, settings.machine, _example(tasks, how))


def write_passages(
    settings: AdaptSettings,
    folder: RunFolder,
    tasks: Sequence[Task],
    questions: Mapping[str, str],
    *,
    place: Device,
    engine: BuildEngine,
    room: int,
    reporter: Reporter,
) -> list[str]:
    """Write the passages and return their texts; own attempts have prompts of at most `room` tokens.

    Raises UserError if no passage is good enough, and if the writing server stops answering.
    """
    how, path = settings.writer, folder.path / "passages.jsonl"
    knowledge = [
        Knowledge(row.get("heading", ""), row["text"], row["origin"]) for row in read_jsonl(folder.path / "selection" / "selected.jsonl")
    ]
    idf = InverseDocumentFrequency.fit([each.text for each in knowledge])
    todo = make_assignments(match_tasks(knowledge, tasks, idf), how.most_tasks)
    kept = read_jsonl(path)
    if not folder.checkpoints():  # training has not begun
        kept = [row for row in kept if row.get("rejected") != NO_REPLY]
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))  # drops a line torn by a kill
        if len(kept) < len(todo):
            if how.how == "rules":
                writer = rules_writer(idf)
            elif how.how == "model":
                ask = open_chat_model(how, place, settings.machine, _example(tasks, how), settings.seed)
                writer = llm_writer(ask, how.with_answer)
            else:
                writer = attempts_writer(own_attempts(engine(), how, room, settings.seed), idf)
            leaks = ContaminationCheck(questions, settings.selection.leak_share)
            for row in PassageBuilder(writer, leaks, settings.selection.similarity, how.min_agreement).rows(todo, list(kept)):
                folder.append("passages.jsonl", row)
                kept.append(row)
    left_out = count_rejections(kept)
    found = [row["text"] for row in sorted(kept, key=lambda row: row["place"]) if "text" in row]
    said = "".join(f", {count:,} left out: {reason}" for reason, count in left_out.items())
    reporter.say(f"passages: {len(found):,} on {len(tasks):,} tasks{said}")
    if not found:
        raise UserError(
            f"no passage came of {len(tasks)} tasks ({left_out}; replies are in {path}): continue with --resume if the writer "
            "did not answer, or begin another run with another writer or study.task_format answers"
        )
    return found


def _example(tasks: Sequence[Task], how: PassageWriter) -> Messages:
    return build_messages(Assignment(Knowledge("", "?", ""), tuple(tasks[:1])), how.with_answer)


def own_attempts(engine: PrefixEngine, how: PassageWriter, room: int, seed: int) -> Attempts:
    """Return a function that samples the current model's attempts, keyed by the prompt only; too long prompts get none."""

    def attempts(prompts: Sequence[str]) -> list[list[str]]:
        rendered = [render_prompt(engine.tokenizer, Task(without_control(engine.tokenizer, prompt))) for prompt in prompts]
        fitting = [ids for ids in rendered if len(ids) <= room]
        keys = [[seed_for(seed, "attempts", str(ids), number) for number in range(how.attempts)] for ids in fitting]
        sampling = Sampling(temperature=how.temperature)
        sampled = engine.generate(fitting, num_samples=how.attempts, max_new_tokens=how.max_new_tokens, sampling=sampling, keys=keys)
        found = iter(sampled)
        return [[each.text for each in next(found)] if len(ids) <= room else [] for ids in rendered]

    return attempts
