"""The one place where a task becomes token ids.

A tokenizer with a chat template renders the messages and opens the assistant's turn; without one the prompt is the plain text and a line
break, so that base models practise too. A task's instruction is a paragraph of its own behind the question. A demonstration ends with the
end-of-sequence token. What the model is told of its answer is a further turn of the user's, without a template a line of text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from etude.errors import UserError
from etude.tasks.task import Task, text_problem

_ANSWER = "theanswersofar"
"""Stands for an answer where a template is asked what it writes behind one."""
AS_IT_IS = {"instruction": ""}
"""What a chat template is told beside the messages: to add no instruction of its own (`etude.rollouts.plain_template`)."""


def render_prompt(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Token ids of the prompt, up to where the answer begins. Raises UserError for a text that is no valid Unicode or too long, and
    for what the chat template refuses.
    """
    messages = [{"role": "user", "content": task.prompt}] if isinstance(task.prompt, str) else [dict(m) for m in task.prompt]
    if task.instruction:
        messages[-1]["content"] += f"\n\n{task.instruction}"
    for message in messages:
        if problem := text_problem(message["content"]):
            who = "the system message" if message["role"] == "system" else task.origin or "a prompt"
            raise UserError(f"{who} {problem}")
    with _panics_told(task.origin or "a prompt"):
        return _prompt_ids(tokenizer, messages, task)


def _prompt_ids(tokenizer: Any, messages: list[Any], task: Task) -> tuple[int, ...]:
    if tokenizer.chat_template:
        try:
            return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **AS_IT_IS))
        except Exception as error:  # a template is a program that came with the model: many refuse a system message, some are broken
            raise UserError(f"the model's chat template refuses {task.origin or 'a prompt'}: {' '.join(str(error).split())}") from error
    text = "\n".join(message["content"] for message in messages) + "\n"
    return tuple(tokenizer(text)["input_ids"])


def render_prompts(tokenizer: Any, tasks: Sequence[Task], max_tokens: int) -> list[tuple[int, ...]]:
    """Return the prompts of many tasks; a prompt longer than `max_tokens` is a user's mistake, named by its origin."""
    prompts = [render_prompt(tokenizer, task) for task in tasks]
    for task, prompt in zip(tasks, prompts, strict=True):
        if len(prompt) > max_tokens:
            raise UserError(f"{task.origin or 'a task'} has a prompt of {len(prompt)} tokens; the model has room for {max_tokens}")
    return prompts


def render_demonstration(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Token ids of the worked answer (the bare answer where there is none), closed by the end of sequence."""
    return render_answer(tokenizer, shown_answer(task))


def shown_answer(task: Task) -> str:
    """Return the worked answer, or the bare one where there is none."""
    text = task.worked if task.worked is not None else task.answer
    if text is None:
        raise UserError(f"{task.origin or 'a task'} has neither a worked answer nor an answer to imitate")
    return text


def render_answer(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of an answer that somebody wrote, closed by the end of sequence."""
    if problem := text_problem(text):
        raise UserError(f"an answer {problem}")
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, so a demonstration can't show where an answer ends: set its eos_token")
    with _panics_told("an answer"):
        return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)


@contextmanager
def _panics_told(what: str) -> Iterator[None]:
    """A tokenizer's panic, such as of a pattern that does not end, as a UserError: it is no Exception of Python's."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"the model's tokenizer gives up on {what}: {' '.join(str(error).split())}") from error


def render_feedback(tokenizer: Any, words: str) -> tuple[int, ...]:
    """Token ids behind an answer that tell the model `words` and open its next one.

    By a chat template they are what it writes behind an assistant's message: the end of that turn, the user's, and the opening of another;
    what it makes of all that came before (a default system message, an answer without its thoughts) is left alone.
    """
    words = without_control(tokenizer, words)
    if not tokenizer.chat_template:
        return tuple(tokenizer(f"\n{words}\n", add_special_tokens=False)["input_ids"])
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": words}]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **AS_IT_IS)
    except Exception as error:
        raise UserError(f"the model's chat template refuses feedback on an answer: {' '.join(str(error).split())}") from error
    _, answer, behind = text.partition(_ANSWER)
    if not answer or words.strip() not in behind:
        raise UserError("the model's chat template leaves out an answer, or what is said of it, so that none can be revised")
    return tuple(tokenizer(behind, add_special_tokens=False)["input_ids"])


def behind_answer(tokenizer: Any, end_tokens: frozenset[int], last_token: int, feedback: tuple[int, ...]) -> tuple[int, ...]:
    """What stands between an answer, by its last token, and its next turn: the feedback, and one end token before it, whoever wrote it."""
    has_end, brings_end = last_token in end_tokens, feedback[0] in end_tokens
    if has_end and brings_end:
        return feedback[1:]
    end = tokenizer.eos_token_id
    return feedback if has_end or brings_end or end is None else (end, *feedback)


def without_control(tokenizer: Any, text: str) -> str:
    """Return a text in which no control token is spelled: a space parts the first character of each from its rest."""
    controls = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and len(token.content) > 1}
    for control in sorted(controls, key=lambda control: (-len(control), control)):
        text = text.replace(control, f"{control[0]} {control[1:]}")
    return text
