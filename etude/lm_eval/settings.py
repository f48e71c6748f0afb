"""Settings of the model that the harness measures (its --model_args); without torch, so that they are read and checked without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from etude.decoding.search_settings import SHORT, AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.decoding.way import Way, check_alone
from etude.device.machine_settings import Machine
from etude.engine.settings import GREEDY
from etude.errors import UserError, at_least
from etude.kv_cache.settings import KVCacheSettings
from etude.rollouts.thinking import Thought
from etude.settings.arguments import arguments_from
from etude.settings.configuration import parse
from etude.settings.unused import Sections, unread_in, unread_of_search

SHORT_NAMES = {name: full for name, full in SHORT.items() if not full.startswith("sampling.")} | {"dtype": "machine.dtype"}
"""Short names of settings: those of `etude generate`, and the harness's own."""


@dataclass(frozen=True)
class HarnessSettings:
    """How prompts of the harness are answered; sampling, stop texts and lengths are its tasks' (`--gen_kwargs`)."""

    max_length: int | None = None
    """Most tokens of a prompt and its answer together; longer prompts lose their beginning. null = what the model has room for."""
    max_gen_toks: int = 256
    """Longest answer in tokens, for tasks that name none."""
    num_samples: int = 4
    """search.method `samples`: answers to choose from."""
    decoding: ReliableDecoding = field(default_factory=ReliableDecoding)
    search: AnswerSearch = field(default_factory=AnswerSearch)
    thought: Thought = field(default_factory=Thought)
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    seed: int = 0
    """Seed of samples; the harness's --seed is that of its few-shot examples."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        at_least("num_samples", self.num_samples, 2)
        at_least("max_gen_toks", self.max_gen_toks, 1)
        if self.max_length is not None:
            at_least("max_length", self.max_length, 2)
        check_alone(self.decoding, self.search, self.thought)
        self.kv_cache.check_search("search.method", self.search.method)

    @property
    def way_name(self) -> str:
        """The setting that changes how prompts are answered, and its value; empty if they are answered plainly."""
        return Way(GREEDY, self.max_gen_toks, decoding=self.decoding, search=self.search, thought=self.thought).name


def parse_harness(values: Mapping[str, Any]) -> HarnessSettings:
    """Read the settings by their dotted or short names. Raises UserError for wrong ones, and for those without effect: nobody measures a
    setting that was ignored.
    """
    settings = parse(HarnessSettings, None, arguments_from(values, HarnessSettings), short=SHORT_NAMES)
    unread: Sections = unread_in("decoding", settings.decoding, "method") | unread_in("kv_cache", settings.kv_cache, "policy")
    unread = {**unread, tuple(f"thought.{name}" for name in sorted(settings.thought.unread)): "thought.budget_tokens is not set"}
    also = [] if settings.search.method == "samples" else ["num_samples"]
    if sentences := unread_of_search(settings, also, unread):
        raise UserError(f"settings without effect ({'; '.join(sentences)}): leave them out")
    return settings
