"""How far a run has come, from its files: whether it is being written, what it is doing, its steps, time so far and time left."""

import re
from dataclasses import dataclass
from pathlib import Path

from etude.evaluation.report.curves import points_of
from etude.evaluation.report.number_format import duration, is_number
from etude.evaluation.report.run_folder import KNOWLEDGE, PHASES, Run
from etude.evaluation.report.writing_process import is_written

STATES = {
    "waiting": "Waiting for the first step",
    "running": "Running",
    "stopped": "Stopped",
    "unseen": "Not finished",
    "finished": "Finished",
}
"""The states of a run, with their names on the page. `unseen`: whether a process writes the run can't be seen from here."""
PACE_STEPS = 10
"""The number of last steps whose mean time gives the time left."""
_MIN_PACE_STEPS = 2
_AFTER = {"base": "the base model", "adapted": "the adapted model"}


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    state: str
    doing: str
    """What it is doing, or did last, in words."""
    is_training: bool
    """Whether that is training, which `done` counts; a measurement is not counted."""
    done: float
    total: float | None
    """How much of the training that goes on, or went before, is done; of how much, None if that is not known."""
    unit: str
    """`steps` or `tokens`."""
    seconds: float
    """Time of all steps so far, without measurements and pauses."""
    seconds_left: float | None
    """Time until `total` at the pace of the last `PACE_STEPS`; None without a process, a total or enough steps."""

    @property
    def may_be_torn(self) -> bool:
        """Whether missing and half-written files are usual, because a process may be at them."""
        return self.state not in ("stopped", "finished")

    @property
    def counted(self) -> str:
        """Return the amount in words, such as "step 3 of 40"; "" before the first step."""
        if not self.done:
            return ""
        of = f" of {self.total:,.0f}" if self.total else ""
        return f"step {self.done:,.0f}{of}" if self.unit == "steps" else f"{self.done:,.0f}{of} {self.unit}"

    @property
    def said(self) -> str:
        """Return in words what it is doing and how much of it is done; of a finished run, how much was done."""
        if self.state == "finished":
            return self.counted
        return f"{self.doing}, {self.counted}" if self.is_training else self.doing

    @property
    def timed(self) -> str:
        """Return the times in words; "" before the first step."""
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} left at this pace"
        return f"{duration(self.seconds)} of steps{left}." if self.seconds else ""


@dataclass(frozen=True)
class _Part:
    """A part of a run: a measurement, or steps of training."""

    doing: str
    is_begun: bool
    is_done: bool
    done: float = 0.0
    total: float | None = None
    unit: str = "steps"
    seconds_each: float | None = None
    """Time of a step or token at the pace of the last steps."""


def progress_of(folder: Path, run: Run) -> Progress:
    """Return how far the run in a folder has come; `run` is what was read there."""
    written, parts = is_written(folder), _parts(folder, run)
    begun = max((place for place, part in enumerate(parts) if part.is_begun), default=-1)
    place = begun + (begun < 0 or parts[begun].is_done)
    part = parts[place] if place < len(parts) else _Part("writing the result", True, False)
    counted = next((each for each in (part, *reversed(parts[:place])) if each.done), part)
    state = "finished" if run.is_finished else "unseen" if written is None else "running" if written else "stopped"
    left = part.seconds_each and part.total and part.seconds_each * (part.total - part.done)
    return Progress(
        state="waiting" if state == "running" and not counted.done else state,
        doing=part.doing,
        is_training=part.done > 0,
        done=counted.done,
        total=counted.total,
        unit=counted.unit,
        seconds=60 * sum(value or 0 for phase in PHASES for _, value in points_of(run, phase, "minutes")),
        seconds_left=left if left and left > 0 and state == "running" else None,
    )


def _parts(folder: Path, run: Run) -> list[_Part]:
    """Return the parts of a run in order, without those that its configuration leaves out."""
    if run.is_adaptation:
        return [_measurement(folder, "base"), _study(run), _measurement(folder, "adapted")]
    first = [_adaptation(folder)] if re.search(r"^adaptation: (?!null$)", run.configuration, re.MULTILINE) else []
    parts = [*first, _measurement(folder, "base")]
    for phase, section in (("warm_start", "warm_start"), ("preference", "preferences")):
        if steps := _number(run, rf"{section}:\n(?:[ -].*\n)*?  steps"):
            parts += [_phase(run, phase, steps), _measurement(folder, phase)]
    steps = _number(run, "steps")
    return [*parts, *([_phase(run, "practice", steps)] if steps else []), _measurement(folder, "practice")]


def _number(run: Run, name: str) -> int:
    """Return a whole number of the configuration by a pattern of its name; 0 if it is missing."""
    found = re.search(rf"^{name}: (\d{{1,15}})$", run.configuration, re.MULTILINE)
    return int(found[1]) if found else 0


def _adaptation(folder: Path) -> _Part:
    is_done = (folder / KNOWLEDGE / "report.html").is_file()  # the last file that it writes
    return _Part("the adaptation before practice", is_done, is_done)


def _measurement(folder: Path, model: str) -> _Part:
    is_done = (folder / "evaluation" / f"{model}.json").is_file()
    after = _AFTER.get(model) or f"the model after {PHASES[model].lower()}"
    return _Part(f"measuring {after}", is_done, is_done)


def _phase(run: Run, phase: str, steps: int) -> _Part:
    done = _last_step(run, phase)
    pace = [minutes for _, minutes in points_of(run, phase, "minutes") if minutes][1:][-PACE_STEPS:]  # a first step also prepares
    each = 60 * sum(pace) / len(pace) if len(pace) >= _MIN_PACE_STEPS else None
    return _Part(PHASES[phase].lower(), done > 0, done >= steps, done, steps, seconds_each=each)


def _study(run: Run) -> _Part:
    """Return the training of an adaptation, counted in tokens, since the number of its steps is not known before it."""
    tokens = {phase: dict(points_of(run, phase, "tokens")) for phase in PHASES}
    phase = next((str(row["phase"]) for row in reversed(run.steps) if row.get("phase") in PHASES), "")
    last = points_of(run, phase, "minutes")[1:][-PACE_STEPS:]
    read = sum(tokens[phase].get(step) or 0 for step, _ in last)
    each = 60 * sum(minutes or 0 for _, minutes in last) / read if len(last) >= _MIN_PACE_STEPS and read else None
    done = sum(number or 0 for own in tokens.values() for number in own.values())
    total = _number(run, r"study:\n(?:[ -].*\n)*?  tokens")
    doing = f"training on {PHASES[phase].lower()}" if phase else "training"
    return _Part(doing, done > 0, 0 < total <= done, done, total, "tokens", each)


def _last_step(run: Run, phase: str) -> float:
    return max((row["step"] for row in run.steps if row.get("phase") == phase and is_number(row.get("step"))), default=0)
