"""An adaptation before practice: one recipe of knowledge, warm start, practice and evaluation.

The adaptation is a run of its own in the practice run's folder `knowledge`, with practice's model and seed, and what practice is told of
the machine; it is gone on with where it was interrupted. Practice begins from its model.
"""

from pathlib import Path

from etude.device.machine import Machine, resolve_device
from etude.errors import UserError
from etude.recipes.adapt import adapt_named, check_models, gather_asked
from etude.recipes.adapt_settings import AdaptSettings, adapt_defaults, parse_adapt
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, flatten, to_plain_values
from etude.training.run import Run
from etude.training.run_folder import RunFolder, check_same, read_configuration
from etude.training.settings import PracticeSettings

FOLDER = "knowledge"


def adaptation_of(settings: PracticeSettings) -> AdaptSettings | None:
    """The settings of the adaptation that comes first, None without one. Raises UserError for settings that are none."""
    if settings.adaptation is None:
        return None
    if clash := {"model", "seed"} & settings.adaptation_settings.keys():
        raise UserError(f"adaptation_settings.{min(clash)} is practice's own: set {min(clash)} there")
    usual, own = flatten(to_plain_values(Machine())), flatten(to_plain_values(settings.machine))
    shared = {"seed": settings.seed, "model": settings.model}
    shared |= {f"machine.{name}": value for name, value in own.items() if value != usual[name]}
    changes = arguments_from({**shared, **settings.adaptation_settings})
    return parse_adapt(find_configuration("adapt", settings.adaptation), changes)


def check_adaptation(settings: AdaptSettings, run: Path, data: Path | None) -> None:
    """Raise UserError where the adaptation could not begin or go on, or was run with other settings."""
    folder = run / FOLDER
    if (folder / "configuration.yaml").exists():
        kept = read_configuration(folder / "configuration.yaml")
        check_same({**adapt_defaults(), **flatten(kept)}, to_plain_values(settings), folder)
    if not is_adapted(folder):
        _, _, tasks = gather_asked(settings, data)
        check_models(settings, tasks, resolve_device(settings.machine), folder)


def adapted(settings: AdaptSettings, run: Run) -> Path:
    """Return the folder of the model that a practice run begins with; made, gone on with, or found."""
    folder, name = run.folder.path / FOLDER, Path(str(run.settings.adaptation)).stem
    is_begun = (folder / "configuration.yaml").exists()
    if not (is_adapted(folder) and (folder / "report.html").exists()):
        adapt_named(settings, name, run=folder, data=run.data_folder, resume=is_begun, watcher=run.reporter)
    return folder / "model"


def is_adapted(folder: Path) -> bool:
    """Whether the adaptation is finished."""
    return (RunFolder(folder).read_json("result.json") or {}).get("status") == "finished"


def told_by(run: Path) -> list[Path]:
    """The runs that the page of a practice run tells of: itself, and the adaptation before it."""
    return [run, *([run / FOLDER] if (run / FOLDER / "configuration.yaml").exists() else [])]
