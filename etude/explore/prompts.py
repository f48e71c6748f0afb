"""The one place where a task becomes token ids.

A tokenizer with a chat template renders the messages and opens the assistant's turn; without one the prompt is the plain text and a line
break, so that base models practise too. A task's instruction is a paragraph of its own behind the question. A demonstration ends with the
end-of-sequence token.
"""

from collections.abc import Sequence
from typing import Any

from etude.errors import UserError
from etude.tasks.task import Task


def render_prompt(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Token ids of the prompt, up to where the answer begins."""
    messages = [{"role": "user", "content": task.prompt}] if isinstance(task.prompt, str) else [dict(m) for m in task.prompt]
    if task.instruction:
        messages[-1]["content"] += f"\n\n{task.instruction}"
    if tokenizer.chat_template:
        try:
            return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        except Exception as error:  # a template is a program that came with the model: many refuse a system message, some are broken
            raise UserError(f"the model's chat template refuses {task.origin or 'a prompt'}: {' '.join(str(error).split())}") from error
    text = "\n".join(message["content"] for message in messages) + "\n"
    return tuple(tokenizer(text)["input_ids"])


def render_prompts(tokenizer: Any, tasks: Sequence[Task], max_tokens: int) -> list[tuple[int, ...]]:
    """The prompts of many tasks; a prompt longer than `max_tokens` is a user's mistake, named by its origin."""
    prompts = [render_prompt(tokenizer, task) for task in tasks]
    for task, prompt in zip(tasks, prompts, strict=True):
        if len(prompt) > max_tokens:
            raise UserError(f"{task.origin or 'a task'} has a prompt of {len(prompt)} tokens; the model has room for {max_tokens}")
    return prompts


def render_demonstration(tokenizer: Any, task: Task) -> tuple[int, ...]:
    """Token ids of the worked answer (the bare answer where there is none), closed by the end of sequence."""
    text = task.worked if task.worked is not None else task.answer
    if text is None:
        raise UserError(f"{task.origin or 'a task'} has neither a worked answer nor an answer to imitate")
    return render_answer(tokenizer, text)


def render_answer(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of an answer that somebody wrote, closed by the end of sequence."""
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, so a demonstration can't show where an answer ends: set its eos_token")
    return (*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id)
