"""Experiment trackers (TensorBoard, W&B, Trackio, ...) through accelerate's tracker classes; they log what a reporter receives.

    etude practice quickstart --track tensorboard,wandb

Runs do not depend on trackers: `metrics.jsonl` has all metrics.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from etude.console.reporter import Reporter
from etude.errors import UserError, unknown
from etude.settings.configuration import flatten


class TrackingReporter:
    """A reporter that passes everything on to another one, and logs numbers to trackers.

    Steps continue from the warm start to practice, since trackers need increasing steps.
    """

    def __init__(self, inner: Reporter, names: Sequence[str], run: Path, configuration: Mapping[str, Any]) -> None:
        """Use the trackers of these `names`; they start at the first number, so that wrong input starts none.

        `run` names the run, and TensorBoard's files go into its folder. Raises UserError for an unknown or missing tracker.
        """
        self.inner = inner
        self.names = [_checked(name) for name in names]
        self.run = run
        self._configuration = flatten(configuration)
        self._trackers: dict[str, Any] | None = None
        self._step = 0
        self._warm_steps = int(self._configuration.get("warm_start.steps") or 0)
        self._preference_steps = self._warm_steps + int(self._configuration.get("preferences.steps") or 0)
        self._all_steps = self._preference_steps + int(self._configuration.get("steps") or 0)

    def say(self, text: str) -> None:
        self.inner.say(text)

    def baselines(self, suites: Mapping[str, Mapping[str, float]], facts: Mapping[str, Any]) -> None:
        self.inner.baselines(suites, facts)

    def measuring(self, model: str, suite: str, n: int) -> None:
        self.inner.measuring(model, suite, n)

    def measured(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.inner.measured(model, rows)
        self._step = max(
            self._step, {"warm_start": self._warm_steps, "preference": self._preference_steps, "practice": self._all_steps}.get(model, 0)
        )
        self._log({f"evaluation/{row['suite']}/{name}": value for row in rows for name, value in row.items() if name != "suite"})

    def steps(self, name: str, steps: range, total: int | None = None) -> Iterable[int]:
        return self.inner.steps(name, steps, total)

    def step(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        self.inner.step(phase, step, metrics, timings)
        self._step = step + {"preference": self._warm_steps, "practice": self._preference_steps}.get(phase, 0)
        self._log({f"{phase}/{name}": value for name, value in {**metrics, **timings}.items()})

    def concluded(self, result: Mapping[str, Any], folder: Path, sentences: Sequence[str] = ()) -> None:
        self.inner.concluded(result, folder, sentences)

    def close(self) -> None:
        """Flush the trackers; a run may end at any time."""
        self._tell("finish")
        self._trackers = {}

    def _log(self, values: Mapping[str, Any]) -> None:
        if self._trackers is None:
            self._trackers = {}
            for name in self.names:
                with self._surviving(name):
                    self._trackers[name] = _started(name, self.run)
            self._tell("store_init_configuration", {name: _plain(value) for name, value in self._configuration.items()})
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
        self._tell("log", numbers, step=self._step)

    def _tell(self, what: str, *values: Any, **options: Any) -> None:
        for name, tracker in list((self._trackers or {}).items()):
            with self._surviving(name):
                getattr(tracker, what)(*values, **options)

    @contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Report and drop a tracker that fails; the run continues."""
        try:
            yield
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.say(f"tracker {name} fails and is left out from here: {lines[0]}")
            (self._trackers or {}).pop(name, None)


def _checked(name: str) -> str:
    if name not in LOGGER_TYPE_TO_CLASS:
        raise unknown("tracker", name, LOGGER_TYPE_TO_CLASS)
    if name not in map(str, get_available_trackers()):
        raise UserError(f"--track {name}: its package is not installed: pip install {name.replace('_', '-')}")
    return name


def _started(name: str, run: Path) -> Any:
    kind = LOGGER_TYPE_TO_CLASS[name]
    PartialState()  # some trackers ask which process this is
    if kind.requires_logging_directory:
        tracker = kind(run.resolve().name, logging_dir=str(run / name))
    else:
        tracker = kind("etude", **({"name": run.resolve().name} if name in ("wandb", "trackio") else {}))
    tracker.start()
    return tracker


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, str, int, float)) or value is None else str(value)
