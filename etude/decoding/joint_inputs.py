"""Inputs for joint decoding, and their joint answer: each input shows the model one of its own answers and asks again.

    turns         the question; the sample, as the model's own answer; `again` and the question once more. The KV cache of question and
                  sample exists from sampling, so only the rest is computed
    one_message   question, sample, `again` and question in one user message, like Cheng et al. 2025 (arXiv 2410.01556)

Equal samples become one input with more weight. An empty sample, or one that leaves no room for an answer, is skipped; without any input
there is no answer.
"""

from collections.abc import Sequence
from dataclasses import replace

from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import Layout
from etude.engine.completion import Prefix
from etude.engine.protocols import Join
from etude.rollouts.prompts import behind_answer, render_feedback, render_prompt, without_control
from etude.tasks.task import Task

NOTHING = "no sample says anything that leaves room for an answer"

JointInput = tuple[Prefix | None, tuple[int, ...]]
"""The prefix that an input continues, and its tokens after it."""


def with_question(task: Task, question: str) -> Task:
    """Return the task with another text as its last message."""
    if isinstance(task.prompt, str):
        return replace(task, prompt=question)
    return replace(task, prompt=(*task.prompt[:-1], {**task.prompt[-1], "content": question}))


def build_inputs(pool: SamplePool, samples: Sequence[Sequence[Prefix]], again: str, layout: Layout) -> list[list[JointInput]]:
    """Build an input for each non-empty sample of each question."""
    inputs: list[list[JointInput]] = []
    for task, prompt, opened, own in zip(pool.tasks, pool.prompts, pool.opened, samples, strict=True):
        speaking = [sample for sample in own if pool.sample(sample).text.strip()]
        if layout == "one_message":
            inputs.append([(None, _in_one_message(pool, task, sample, again)) for sample in speaking])
            continue
        words = render_feedback(pool.engine.tokenizer, f"{again}\n\n{_asked(task)}".strip())
        ends = [behind_answer(pool.engine.tokenizer, pool.engine.end_tokens, sample.tokens[-1], words) for sample in speaking]
        inputs.append([])
        for sample, end in zip(speaking, ends, strict=True):
            is_own = sample.tokens[: len(prompt)] == prompt
            inputs[-1].append((sample, end) if is_own else (opened, (*sample.own_tokens, *end)))
    return inputs


def _in_one_message(pool: SamplePool, task: Task, sample: Prefix, again: str) -> tuple[int, ...]:
    said = without_control(pool.engine.tokenizer, pool.sample(sample).text.strip())
    parts = [task.question, said, again, task.question]
    return render_prompt(pool.engine.tokenizer, with_question(task, "\n\n".join(part for part in parts if part)))


def _asked(task: Task) -> str:
    return f"{task.question}\n\n{task.instruction}" if task.instruction else task.question


def decode_jointly(pool: SamplePool, inputs: Sequence[Sequence[JointInput]], join: Join, k: int) -> list[DecodedAnswer]:
    """Decode each question's inputs (at most `k`) together; equal inputs are computed once."""
    whole = [[(*(before.tokens if before else ()), *tokens) for before, tokens in own] for own in inputs]
    fitting = {
        tokens: given
        for own, sequences in zip(inputs, whole, strict=True)
        for given, tokens in zip(own, sequences, strict=True)
        if len(tokens) <= pool.room_tokens
    }
    prefixes = [before for before, _ in fitting.values() if before is not None]  # all inputs have one, or none has
    new = [tokens for _, tokens in fitting.values()]
    opened = dict(zip(fitting, pool.engine.open(new, prefixes or None), strict=True)) if fitting else {}
    groups = [[opened[tokens] for tokens in own if tokens in opened] for own in whole]
    found = pool.joint(groups, join)
    pool.engine.release(list(opened.values()))
    answers = []
    for joint, group in zip(found, groups, strict=True):
        if joint is None:
            answers.append(DecodedAnswer(None, notes=(NOTHING,)))
            continue
        notes = (f"{k - len(group)} of {k} samples say nothing or leave no room",) if len(group) < k else ()
        answers.append(DecodedAnswer.of(joint.completion, agreement=joint.agreement, notes=notes))
    return answers
