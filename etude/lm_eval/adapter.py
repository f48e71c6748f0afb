"""The harness's class of models, on etude's engine (lm-evaluation-harness, Gao et al. 2021; its `TemplateLM`).

Log-likelihoods are those of its own `hf` models, and so are greedy answers, each up to rounding: the same tokens (no special ones beyond
the tokenizer's own; a prompt in a chat template is not begun twice), the same windows of long texts. Answers may come by a decoding method,
a search, after a thought, or under a cache policy; log-likelihoods may be under a cache policy.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from etude.decoding.answering import answers
from etude.device.machine import resolve_device
from etude.engine.build import engine_at
from etude.engine.completion import Tokens
from etude.errors import UserError
from etude.lm_eval.generation import asks_again, way_of
from etude.lm_eval.likelihoods import Likelihood, likelihoods, viewed_likelihoods
from etude.lm_eval.settings import parse_harness
from etude.models.load import describe_weights, load_model
from etude.randomness import seed_for
from etude.suites.retention_probe import logprobs_of
from etude.tasks.task import Task
from etude.training.step_model_files import value_for

_AT_ONCE = 128
"""Prompts that are answered before the harness is told, which keeps them if it has a cache."""


class Conversation(str):
    """A prompt in the model's chat template that remembers its messages: some methods ask about them again."""

    messages: tuple[Mapping[str, str], ...] = ()

    @staticmethod
    def of(text: str, messages: Sequence[Mapping[str, str]]) -> "Conversation":
        """Return the text of messages, with them."""
        made = Conversation(text)
        made.messages = tuple({"role": message["role"], "content": message["content"]} for message in messages)
        return made


@register_model("etude")
class EtudeLM(TemplateLM):
    """A model on etude's engine, as the harness asks it."""

    def __init__(
        self, pretrained: Any, *, device: str | None = None, batch_size: Any = None, max_batch_size: Any = None, **settings: Any
    ) -> None:
        """Load a model by name, or take a pair of model and tokenizer.

        `settings` are those of `etude.lm_eval.settings`. Batch sizes change nothing: the engine decodes as many rows together as
        `machine.kv_cache_tokens` allows. Raises UserError for wrong settings, and for a model that can't be loaded.
        """
        super().__init__()
        if device is not None and not (device.startswith("cuda") and not torch.cuda.is_available()):  # the harness's default is cuda:0
            settings = {"machine.device": device, **settings}
        self.settings = parse_harness(settings)
        machine = self.settings.machine
        self.name = pretrained if isinstance(pretrained, str) else type(pretrained[0]).__name__
        self._place = resolve_device(machine)
        loaded: tuple[Any, Any] = load_model(pretrained, device=self._place.device) if isinstance(pretrained, str) else pretrained
        self.model, self.tokenizer = loaded
        self._view = self.settings.kv_cache.build_view(self.tokenizer)
        self.engine = engine_at(self._place, self.model, self.tokenizer, machine, self._view)
        self._by_step_model = value_for(self.settings.search, self.name, self.model, self._place, machine)

    # ------------------------------------------------------------------ tokens

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt and its answer."""
        return min(self.settings.max_length or self.engine.positions, self.engine.positions)

    @property
    def eot_token_id(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token, after which the harness begins texts: set its eos_token")
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token that a text without a context follows."""
        return self.eot_token_id if self.tokenizer.bos_token_id is None else int(self.tokenizer.bos_token_id)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return the tokens of a text, by default with the special ones of the tokenizer, but not with a second first token."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(str(self.tokenizer.decode(self.prefix_token_id)))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the messages in the model's chat template. Raises UserError if it has none, or refuses them."""
        if not self.tokenizer.chat_template:
            raise UserError(f"the model {self.name!r} has no chat template: leave --apply_chat_template out")
        opens: dict[str, Any] = {"add_generation_prompt": add_generation_prompt, "continue_final_message": not add_generation_prompt}
        try:
            text = str(self.tokenizer.apply_chat_template(chat_history, tokenize=False, **opens))
        except Exception as error:  # templates are programs of the model: many refuse a system message, some are broken
            raise UserError(f"the model's chat template refuses a prompt: {' '.join(str(error).split())}") from error
        return Conversation.of(text, chat_history) if add_generation_prompt else text

    # ------------------------------------------------------------------ log-likelihoods

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[Likelihood]:
        """Return the log-likelihood of each continuation; a context that is too long loses its beginning."""
        if way := self.settings.way_name:
            raise UserError(f"{way} writes texts and has no log-likelihoods: leave it out, or choose tasks of output_type generate_until")
        found: list[Likelihood] = []
        for part in self._parts(requests, "log-likelihoods", disable_tqdm):
            some = self._likelihoods([self._cut(context, continuation) for _, context, continuation in part])
            for (texts, _, _), each in zip(part, some, strict=True):
                if texts is not None:
                    self.cache_hook.add_partial("loglikelihood", texts, each)
            found += some
        return found

    def _cut(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[Tokens, Tokens]:
        """Return context and continuation in as many tokens as the model reads, of which the last is only predicted."""
        if len(continuation) > self.max_length:
            raise UserError(f"a continuation has {len(continuation)} tokens and the model room for {self.max_length}: shorten it")
        whole = (*context, *continuation)[-(self.max_length + 1) :]
        return whole[: -len(continuation)], whole[-len(continuation) :]

    def _likelihoods(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> list[Likelihood]:
        batch_tokens = self.settings.machine.max_tokens_per_microbatch
        if self._view is None:
            return likelihoods(self.model, pairs, batch_tokens=batch_tokens)
        return viewed_likelihoods(self.model, pairs, self._view, self.tokenizer.pad_token_id or 0, batch_tokens=batch_tokens)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each whole text, in windows that do not overlap but for one token of context."""
        windows: list[tuple[int, tuple[None, list[int], list[int]]]] = []
        for place, request in enumerate(requests):
            rolling = get_rolling_token_windows(self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length, context_len=1)
            windows += [(place, (None, *make_disjoint_window(window))) for window in rolling]
        sums = [0.0] * len(requests)
        found = self._loglikelihood_tokens([window for _, window in windows], disable_tqdm=disable_tqdm)
        for (place, _), (logprob, _) in zip(windows, found, strict=True):
            sums[place] += logprob
        for request, logprob in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, logprob)
        return sums

    # ------------------------------------------------------------------ texts

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return an answer to each prompt; those with equal generation_kwargs are decoded together."""
        alike: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        found: dict[int, str] = {}
        for kwargs, places in alike.items():
            texts = self._answered([requests[place].args[0] for place in places], json.loads(kwargs), disable_tqdm)
            found |= dict(zip(places, texts, strict=True))
        return [found[place] for place in range(len(requests))]

    def _answered(self, prompts: Sequence[str], kwargs: dict[str, Any], disable_tqdm: bool) -> list[str]:
        ends = {self.tokenizer.decode([token], skip_special_tokens=False) for token in self.engine.end_tokens}
        way = way_of(kwargs, self.settings, ends.__contains__)
        room = self.max_length - way.max_new_tokens
        if room < 1:
            raise UserError(f"an answer of {way.max_new_tokens} tokens leaves no room for a prompt in {self.max_length}: ask for fewer")
        logprobs, texts = logprobs_of(self.model, self._place, self.settings.machine), list[str]()
        for part in self._parts(prompts, "answers", disable_tqdm):
            items = [(self._task(prompt), tuple(self.tok_encode(prompt)[-room:])) for prompt in part]
            names = (self.settings.seed, "lm_eval", len(texts))
            how: dict[str, Any] = {"names": names, "logprobs": logprobs, "by_step_model": self._by_step_model}
            found = answers(self.engine, items, way, keys=[[seed_for(*names, place)] for place in range(len(part))], **how)
            for prompt, (answer,) in zip(part, found, strict=True):
                self.cache_hook.add_partial("generate_until", (prompt, kwargs), answer.text)
                texts.append(answer.text)
        return texts

    def _task(self, prompt: str) -> Task:
        """Return the prompt as a task. Raises UserError if the model is to be asked about it again, and its messages are not known."""
        messages = prompt.messages if isinstance(prompt, Conversation) else ()
        if not messages and self.tokenizer.chat_template and (again := asks_again(self.settings)):
            raise UserError(f"{again} asks the model again, in its chat template: add --apply_chat_template")
        return Task(messages or str(prompt))

    # ------------------------------------------------------------------ the harness

    def _parts(self, requests: Sequence[Any], what: str, disable_tqdm: bool) -> Iterator[list[Any]]:
        """Yield the requests in parts, and show how many are done."""
        with tqdm(total=len(requests), desc=f"etude: {what}", disable=disable_tqdm) as bar:
            queue = iter(requests)
            while part := list(islice(queue, _AT_ONCE)):
                yield part
                bar.update(len(part))

    def get_model_info(self) -> dict[str, Any]:
        """Return what the harness keeps of the model beside its results."""
        return {"model_weights": describe_weights(self.name), "model_dtype": self._place.precision, "model_device": self._place.device}
