"""Decoding methods for plain transformers, as functions for `model.generate(custom_generate=...)`.

    questions = ["What is the capital of Australia?", "Who wrote Emma?"]
    inputs = tokenizer.apply_chat_template([[{"role": "user", "content": question}] for question in questions], ...)
    found = model.generate(**inputs, max_new_tokens=24, custom_generate=reliable("integrative", tokenizer, questions, k=4))

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
from etude.tasks.task import Task

Question = str | Sequence[dict[str, str]]
"""The text of a question, or chat messages that end with the user's."""


def reliable(method: str, tokenizer: Any, questions: Sequence[Question], *, seed: int = 0, **settings: Any) -> Callable[..., torch.Tensor]:
    """Create a `custom_generate` that answers these questions, one for each prompt; `settings` are those of `ReliableDecoding`.

    Raises UserError for wrong settings; when called, if prompts and questions differ in number.
    """
    how = ReliableDecoding(method, **settings)
    tasks = [Task(each if isinstance(each, str) else tuple(each), origin=f"question {i + 1}") for i, each in enumerate(questions)]

    def custom_generate(model: Any, input_ids: torch.Tensor, generation_config: Any, **kwargs: Any) -> torch.Tensor:
        """Answer the prompts. Raises UserError if prompts and questions differ in number."""
        if len(tasks) != len(input_ids):
            raise UserError(f"there are {len(input_ids)} prompts for {len(tasks)} questions: give a question for each")
        given = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if given is None else given  # there is no mask without padding
        prompts = [tuple(row[own.bool()].tolist()) for row, own in zip(input_ids, mask, strict=True)]
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


def _sampling(config: Any) -> Sampling:
    if not config.do_sample:
        return GREEDY
    given = {name: getattr(config, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    return Sampling(**{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def _logprobs(model: Any, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, ...]]:
    """Return the log-probs of completions given their prompts, one at a time."""
    return [tuple(token_logprobs(completion_logits(model, prompt, completion), completion).tolist()) for prompt, completion in pairs]
