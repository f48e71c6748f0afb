"""The harness of all suites: reads a suite's settings, loads the model, measures it, and returns the result.

A suite provides its settings (a frozen dataclass), `load` (its data, so that mistakes in it are found before the model is loaded) and
`measure` (settings, data, model → metrics).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.console.reporter import Reporter, Silent
from etude.device.limits import within_limits
from etude.device.machine import Device, max_prompt_tokens, resolve_device
from etude.device.machine_settings import Machine
from etude.engine.build import engine_at
from etude.engine.completion import Logprobs
from etude.engine.protocols import PrefixEngine
from etude.models.load import describe_weights, load_model
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, parse
from etude.suites.retention_probe import logprobs_of

Row = dict[str, Any]
"""The metrics of one part of a suite."""


@dataclass(frozen=True)
class Request:
    """The arguments of one evaluation, other than model and settings."""

    data: Path | None = None
    """The folder of data sets."""
    page: Path | None = None
    """An HTML file to write, for suites that have a page."""
    reporter: Reporter = field(default_factory=Silent)


@dataclass(frozen=True)
class Subject:
    """The model that is measured."""

    model: Any
    tokenizer: Any
    place: Device
    machine: Machine
    request: Request

    @property
    def reporter(self) -> Reporter:
        return self.request.reporter

    @property
    def logprobs(self) -> Logprobs:
        return logprobs_of(self.model, self.place, self.machine)

    def engine(self) -> PrefixEngine:
        """Build an engine, which may hold a copy of the model."""
        return engine_at(self.place, self.model, self.tokenizer, self.machine)

    def room(self, new_tokens: int = 0) -> int:
        """Return the longest prompt, in tokens, that `new_tokens` can follow. Raises UserError without such room."""
        return max_prompt_tokens(self.model, new_tokens)


@dataclass(frozen=True)
class SuiteDefinition:
    """A suite that `etude evaluate MODEL --suite NAME` measures."""

    command: str
    """`command` of its YAML files."""
    default: str
    """The shipped configuration."""
    settings: type[Any]
    load: Callable[[Any, Request], Any]
    """(settings, request) → its data."""
    measure: Callable[[Any, Any, Subject, str], dict[str, Any]]
    """(settings, data, subject, name of the model) → the result without `model` and `weights`."""
    short: Mapping[str, str] = field(default_factory=dict)
    """Short options of the command line."""
    has_page: bool = False

    def parse(self, name: str, overrides: Sequence[str]) -> Any:
        """Read the settings of a YAML file or a shipped configuration, with `--key value` overrides. Raises UserError for wrong ones."""
        return parse(self.settings, find_configuration(self.command, name), overrides, short=self.short)

    def evaluate(
        self,
        model: str,
        settings: Any = None,
        overrides: Mapping[str, Any] | None = None,
        *,
        data: Path | str | None = None,
        page: Path | str | None = None,
        reporter: Reporter | None = None,
    ) -> dict[str, Any]:
        """Measure a model and return `{"model", "weights", ...}`; `settings` are those of the suite, or the name of a configuration.

        Raises UserError for wrong settings, and for data or a model that can't be loaded.
        """
        if settings is None or isinstance(settings, str):
            settings = self.parse(settings or self.default, arguments_from(overrides or {}))
        request = Request(Path(data) if data else None, Path(page) if page else None, reporter or Silent())
        machine = getattr(settings, "machine", Machine())  # an adaptation's suite has none of its own
        loaded = self.load(settings, request)
        place = resolve_device(machine)
        network, tokenizer = load_model(model, device=place.device)
        with within_limits(machine):
            found = self.measure(settings, loaded, Subject(network, tokenizer, place, machine, request), model)
        return {"model": model, "weights": describe_weights(model), **found}


def report_rows(rows: Iterable[Row], line: Callable[[Row], str], reporter: Reporter) -> list[Row]:
    """Collect rows, reporting each as a line as soon as it is measured."""
    kept = []
    for row in rows:
        reporter.say(line(row))
        kept.append(row)
    return kept
