"""Render tasks as token ids, in this one place.

A tokenizer with a chat template renders the messages and opens the assistant's turn; without one the prompt is the plain text and a line
break, so that base models can practise too. A task's instruction is a paragraph after the question. A demonstration ends with the
end-of-sequence token. Feedback on an answer is a further user turn, or without a template a line of text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from etude.errors import UserError
from etude.tasks.task import Task, text_problem

_ANSWER = "theanswersofar"
"""Placeholder for an answer, to find out what a template writes after one."""
AS_IT_IS = {"instruction": ""}
"""Argument for chat templates: add no instruction of their own (`etude.rollouts.plain_template`)."""


def render_prompt(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Return the token ids of the prompt, up to where the answer begins. Raises UserError for a text that is no valid Unicode or too long,
    and if the chat template refuses the messages.
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
        except Exception as error:  # templates are programs of the model: many refuse a system message, some are broken
            raise UserError(f"the model's chat template refuses {task.origin or 'a prompt'}: {' '.join(str(error).split())}") from error
    text = "\n".join(message["content"] for message in messages) + "\n"
    return tuple(tokenizer(text)["input_ids"])


def render_prompts(tokenizer: Any, tasks: Sequence[Task], max_tokens: int) -> list[tuple[int, ...]]:
    """Return the prompts of many tasks. Raises UserError with the origin of one that is longer than `max_tokens`."""
    prompts = [render_prompt(tokenizer, task) for task in tasks]
    for task, prompt in zip(tasks, prompts, strict=True):
        if len(prompt) > max_tokens:
            raise UserError(f"{task.origin or 'a task'} has a prompt of {len(prompt)} tokens; the model has room for {max_tokens}")
    return prompts


def render_demonstration(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Return the token ids of the worked answer (the bare answer without one), with the end-of-sequence token."""
    return render_answer(tokenizer, shown_answer(task))


def shown_answer(task: Task) -> str:
    """Return the worked answer, or the bare answer without one. Raises UserError if there is neither."""
    text = task.worked if task.worked is not None else task.answer
    if text is None:
        raise UserError(f"{task.origin or 'a task'} has neither a worked answer nor an answer to imitate")
    return text


def render_answer(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Return the token ids of a written answer, with the end-of-sequence token."""
    if problem := text_problem(text):
        raise UserError(f"an answer {problem}")
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, so a demonstration can't show where an answer ends: set its eos_token")
    with _panics_told("an answer"):
        return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)


@contextmanager
def _panics_told(what: str) -> Iterator[None]:
    """Raise a tokenizer's panic, such as of an endless pattern, as a UserError: it is not a Python Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UserError(f"the model's tokenizer gives up on {what}: {' '.join(str(error).split())}") from error


def render_feedback(tokenizer: Any, words: str) -> tuple[int, ...]:
    """Return the token ids after an answer that tell the model `words` and open its next answer.

    With a chat template they are what it writes after an assistant's message: the end of that turn, the user's turn, and the opening of the
    next. The template's changes of earlier messages (a default system message, an answer without its thoughts) are not applied.
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
    """Return the tokens between an answer, given by its last token, and its next turn: the feedback after exactly one end token."""
    has_end, brings_end = last_token in end_tokens, feedback[0] in end_tokens
    if has_end and brings_end:
        return feedback[1:]
    end = tokenizer.eos_token_id
    return feedback if has_end or brings_end or end is None else (end, *feedback)


def without_control(tokenizer: Any, text: str) -> str:
    """Return a text without the spelling of any control token: a space is inserted after the first character of each."""
    controls = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and len(token.content) > 1}
    for control in sorted(controls, key=lambda control: (-len(control), control)):
        text = text.replace(control, f"{control[0]} {control[1:]}")
    return text
