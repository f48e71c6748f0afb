"""Decoding methods for plain transformers, as functions for `model.generate(custom_generate=...)`.

    chats = [[{"role": "user", "content": "What is the capital of Australia?"}], [{"role": "user", "content": "Who wrote Emma?"}]]
    inputs = tokenizer.apply_chat_template(chats, padding=True, ...)
    found = model.generate(**inputs, max_new_tokens=24, custom_generate=reliable("integrative", tokenizer, k=4))

The methods ask again, so they need the question of each prompt. It is read from a prompt that is one question in the model's chat template;
conversations are given as `questions`. `generate` keeps its own `tokenizer` argument to itself, so this one is needed.

The prompts are those of `generate`, padded on the left. The arguments of `generate` set the sampling of the answer (greedy, or `do_sample`
with temperature, top_k, top_p and min_p); the method's settings set that of its samples. The result has prompts and answers, like that of
`generate`; a question without an answer has only padding after its prompt.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from etude.decoding.decode import decode
from etude.decoding.logit_lens import completion_logits, token_logprobs
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Device, Machine
from etude.engine.build import engine_at
from etude.engine.completion import Tokens
from etude.engine.sampling import GREEDY, Sampling
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt, without_control
from etude.tasks.task import Task

Question = str | Sequence[dict[str, str]]
"""The text of a question, or chat messages that end with the user's."""
_ANY_QUESTION = "question 1"


def reliable(
    method: str, tokenizer: Any, questions: Sequence[Question] | None = None, *, seed: int = 0, **settings: Any
) -> Callable[..., torch.Tensor]:
    """Create a `custom_generate` that answers its prompts by a method; `settings` are those of `ReliableDecoding`.

    `questions`: one for each prompt, in order; without them they are read from the prompts. Raises UserError for wrong settings; when
    called, if prompts and questions differ in number, or a prompt is no single question.
    """
    how = ReliableDecoding(method, **settings)

    def custom_generate(model: Any, input_ids: torch.Tensor, generation_config: Any, **kwargs: Any) -> torch.Tensor:
        """Answer the prompts. Raises UserError if prompts and questions differ in number, or a prompt is no single question."""
        if questions is not None and len(questions) != len(input_ids):
            raise UserError(f"there are {len(input_ids)} prompts for {len(questions)} questions: give a question for each")
        given = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if given is None else given  # there is no mask without padding
        prompts = [tuple(row[own.bool()].tolist()) for row, own in zip(input_ids, mask, strict=True)]
        asked = [_question(tokenizer, prompt, place) for place, prompt in enumerate(prompts, 1)] if questions is None else questions
        tasks = [Task(each if isinstance(each, str) else tuple(each), origin=f"question {i}") for i, each in enumerate(asked, 1)]
        longest = generation_config.max_length - input_ids.shape[1]
        engine = engine_at(Device(str(input_ids.device), "float32"), model, tokenizer, Machine())
        ends = generation_config.eos_token_id
        engine.end_tokens |= frozenset([ends] if isinstance(ends, int) else ends or [])
        asking: dict[str, Any] = {"max_new_tokens": longest, "room_tokens": engine.positions - longest if engine.positions else 10**9}
        asking |= {"sampling": _sampling(generation_config), "names": (seed, "generate")}
        found = decode(engine, list(zip(tasks, prompts, strict=True)), how, **asking, logprobs=lambda pairs: _logprobs(model, pairs))
        pad = generation_config.pad_token_id if generation_config.pad_token_id is not None else next(iter(engine.end_tokens), 0)
        answers = [torch.tensor(each.answer.tokens, dtype=torch.long, device=input_ids.device) for each in found]
        return torch.cat([input_ids, pad_sequence(answers, batch_first=True, padding_value=pad)], dim=1)

    return custom_generate


def _question(tokenizer: Any, prompt: Tokens, place: int) -> str:
    """Return the question that a prompt asks: its text without what the chat template puts before and after a question."""
    head, found, tail = tokenizer.decode(render_prompt(tokenizer, Task(_ANY_QUESTION))).rpartition(_ANY_QUESTION)
    text = tokenizer.decode(prompt)
    question = text[len(head) : len(text) - len(tail)]
    asks_it = question == without_control(tokenizer, question) and render_prompt(tokenizer, Task(question)) == prompt
    if not found or not question or not asks_it:
        raise UserError(
            f"prompt {place} is not one question in the model's chat template: give what is asked, as reliable(..., questions=[...]), "
            "each a text or chat messages"
        )
    return question


def _sampling(config: Any) -> Sampling:
    if not config.do_sample:
        return GREEDY
    given = {name: getattr(config, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    return Sampling(**{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def _logprobs(model: Any, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, ...]]:
    """Return the log-probs of completions given their prompts, one at a time."""
    return [tuple(token_logprobs(completion_logits(model, prompt, completion), completion).tolist()) for prompt, completion in pairs]
