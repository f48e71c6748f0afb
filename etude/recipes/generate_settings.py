"""Settings of `generate`. Every field is a `--key` of the command line; without torch, so that they are read and checked without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from etude.decoding.search_settings import SHORT, AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.decoding.way import check_alone
from etude.device.machine_settings import Machine
from etude.engine.settings import Sampling
from etude.errors import UserError, at_least
from etude.kv_cache.settings import KVCacheSettings
from etude.rollouts.thinking import Thought
from etude.settings.configuration import parse
from etude.tasks.files import read_json
from etude.tasks.task import text_problem
from etude.training.generation_config import checked_generation_config, find_generation_config

COMMON = (
    *("prompt", "file", "system", "instruction", "num_samples", "max_new_tokens", "sampling.temperature", "sampling.top_p", "stop"),
    *("decoding.method", "decoding.k", "search.method", "thought.budget_tokens", "kv_cache.policy", "kv_cache.keep_ratio", "seed"),
    *("machine.device", "machine.dtype"),
)
"""The settings that help shows first."""


@dataclass(frozen=True)
class GenerateSettings:
    """Settings of `generate`: prompts, sampling and decoding."""

    prompt: str | None = None
    """One question; without it or a file, standard input is read, one prompt per line."""
    file: str | None = None
    """Text file with one prompt per line, or JSONL with `prompt` or `question`."""
    system: str | None = None
    """System message before every prompt."""
    instruction: str | None = None
    """Text after every prompt, such as the format of the answer."""
    num_samples: int = 1
    """Answers per prompt."""
    max_new_tokens: int = 128
    """Longest answer in tokens."""
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    search: AnswerSearch = field(default_factory=AnswerSearch)
    decoding: ReliableDecoding = field(default_factory=ReliableDecoding)
    thought: Thought = field(default_factory=Thought)
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    stop: list[str] = field(default_factory=list)
    """Strings that end an answer."""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        for name in ("num_samples", "max_new_tokens"):
            at_least(name, getattr(self, name), 1)
        self.search.check(self.sampling)
        self.kv_cache.check_search("search.method", self.search.method)
        if self.search.method == "samples" and self.num_samples < 2:
            raise UserError("search.method samples chooses among num_samples answers, but that is 1: set num_samples to 2 or more")
        stop, several = "stop" if self.stop else "", f"num_samples {self.num_samples}" if self.num_samples > 1 else ""
        check_alone(self.decoding, self.search, self.thought, stop=stop, several=several)
        if self.num_samples > 1 and self.sampling.is_greedy:
            raise UserError(f"num_samples is {self.num_samples}, but at temperature 0 all answers are equal: set sampling.temperature")


def parse_generate(model: str, overrides: Sequence[str]) -> GenerateSettings:
    """Read the settings: overrides, then the model folder's `etude.yaml`, greedy unless sampling is set. Raises UserError if wrong."""
    return parse(GenerateSettings, find_generation_config(model), overrides, adjust=_but_greedy, short=SHORT)


def _but_greedy(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in checked_generation_config(values).items() if not name.startswith("sampling.")}


def prompts_from(settings: GenerateSettings, standard_input: TextIO) -> list[str]:
    """Return the prompts that the settings name, or the lines of standard input. Raises UserError for a file that can't be read, and for no
    prompt.
    """
    if settings.prompt is not None and settings.file is not None:
        raise UserError("--prompt and --file exclude each other: give one")
    if settings.prompt is not None:
        return [_checked(settings.prompt, "--prompt")]
    path = Path(settings.file or "")
    if settings.file is not None and (path.is_dir() or not path.exists()):
        raise UserError(f"--file {path}: {'is a folder: name a file in it' if path.is_dir() else 'no such file'}")
    try:
        text = standard_input.read() if settings.file is None else path.read_text(encoding="utf8")
    except UnicodeDecodeError as error:
        named = "standard input" if settings.file is None else f"--file {path}"
        raise UserError(f"{named}: not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]  # JSON may hold other line breaks
    named = "standard input" if settings.file is None else str(path)
    if not lines:
        raise UserError(f"there is no prompt: {named} is empty; give --prompt TEXT, or a file with a prompt a line")
    return [_checked(_prompt(path, number, line), f"{named}:{number}: the prompt") for number, line in lines]


def _checked(prompt: str, name: str) -> str:
    """Return the prompt. Raises UserError if a tokenizer can't take it."""
    if problem := text_problem(prompt):
        raise UserError(f"{name} {problem}")
    return prompt


def _prompt(path: Path, number: int, line: str) -> str:
    if path.suffix not in (".jsonl", ".json"):
        return line.strip()
    row = read_json(line, f"{path}:{number}")
    prompt = row.get("prompt", row.get("question")) if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        raise UserError(f"{path}:{number}: expected a JSON object with `prompt` or `question`, a text")
    return prompt
