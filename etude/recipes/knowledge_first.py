"""An adaptation before practice: one recipe of knowledge, warm start, practice and evaluation.

The adaptation is a run of its own in the practice run's folder `knowledge`, with practice's model and seed, and what practice is told of
the machine; it is gone on with where it was interrupted. Practice begins from its model.
"""

from pathlib import Path

from etude.console.reporter import Reporter
from etude.device.machine import Machine, decide
from etude.errors import UserError
from etude.recipes.adapt import adapt_named, check_models, gather_asked
from etude.recipes.adapt_settings import AdaptSettings, adapt_defaults, parse_adapt
from etude.recipes.settings import PracticeSettings
from etude.settings.configuration import arguments_from, dotted, find_configuration, resolved
from etude.training.run_folder import RunFolder, check_same, read_configuration

FOLDER = "knowledge"


def parse_adaptation(settings: PracticeSettings) -> AdaptSettings | None:
    """The settings of the adaptation that comes first, None without one. Raises UserError for settings that are none."""
    if settings.adaptation is None:
        return None
    if clash := {"model", "seed"} & settings.adaptation_settings.keys():
        raise UserError(f"adaptation_settings.{min(clash)} is practice's own: set {min(clash)} there")
    usual, own = dotted(resolved(Machine())), dotted(resolved(settings.machine))
    shared = {"seed": settings.seed, "model": settings.model}
    shared |= {f"machine.{name}": value for name, value in own.items() if value != usual[name]}
    changes = arguments_from({**shared, **settings.adaptation_settings})
    return parse_adapt(find_configuration("adapt", settings.adaptation), changes)


def check_adaptation(settings: AdaptSettings, run: Path, data: Path | None) -> None:
    """Raise UserError where the adaptation could not begin or go on, or was run with other settings."""
    folder = run / FOLDER
    if (folder / "configuration.yaml").exists():
        kept = read_configuration(folder / "configuration.yaml")
        check_same({**adapt_defaults(), **dotted(kept)}, resolved(settings), folder)
    if not is_adapted(folder):
        _, _, tasks = gather_asked(settings, data)
        check_models(settings, tasks, decide(settings.machine), folder)


def run_adaptation(settings: AdaptSettings, name: str, run: Path, data: Path | None, reporter: Reporter) -> Path:
    """The folder of the adapted model; made, gone on with, or found."""
    folder = run / FOLDER
    is_begun = (folder / "configuration.yaml").exists()
    if not (is_adapted(folder) and (folder / "report.html").exists()):
        adapt_named(settings, name, run=folder, data=data, resume=is_begun, reporter=reporter)
    return folder / "model"


def is_adapted(folder: Path) -> bool:
    """Whether the adaptation is finished."""
    return (RunFolder(folder).read_json("result.json") or {}).get("status") == "finished"


def report_folders(run: Path) -> list[Path]:
    """The runs that the page of a practice run tells of: itself, and the adaptation before it."""
    return [run, *([run / FOLDER] if (run / FOLDER / "configuration.yaml").exists() else [])]
