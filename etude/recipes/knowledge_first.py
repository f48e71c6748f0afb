"""Adaptation before practice: one recipe of adaptation, warm start, practice and evaluation.

The adaptation is a run of its own in the practice run's folder `knowledge`, with practice's model, seed and device settings. It is resumed
if it was interrupted. Practice begins from its model.
"""

from pathlib import Path

from etude.device.machine import Machine, resolve_device
from etude.errors import UserError
from etude.evaluation.report.run_folder import KNOWLEDGE
from etude.recipes.adapt import adapt_named, check_models, gather_asked
from etude.recipes.adapt_settings import AdaptSettings, adapt_defaults, parse_adapt
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, flatten, to_plain_values
from etude.training.run import Run
from etude.training.run_folder import RunFolder, check_same, read_configuration
from etude.training.settings import PracticeSettings


def parse_adaptation(settings: PracticeSettings) -> AdaptSettings | None:
    """Return the settings of the adaptation, None without one. Raises UserError for wrong ones."""
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
    """Check that the adaptation can begin or resume. Raises UserError if not, or if it was run with other settings."""
    folder = run / KNOWLEDGE
    if (folder / "configuration.yaml").exists():
        kept = read_configuration(folder / "configuration.yaml")
        check_same({**adapt_defaults(), **flatten(kept)}, to_plain_values(settings), folder)
    if not is_adapted(folder):
        _, _, tasks = gather_asked(settings, data)
        check_models(settings, tasks, resolve_device(settings.machine), folder)


def run_adaptation(settings: AdaptSettings, run: Run) -> Path:
    """Return the folder of the model that practice begins with; run or resume its adaptation unless it is finished."""
    folder, name = run.folder.path / KNOWLEDGE, Path(str(run.settings.adaptation)).stem
    is_begun = (folder / "configuration.yaml").exists()
    if not (is_adapted(folder) and (folder / "report.html").exists()):
        adapt_named(settings, name, run=folder, data=run.data_folder, resume=is_begun, reporter=run.reporter)
    return folder / "model"


def is_adapted(folder: Path) -> bool:
    """Return whether the adaptation is finished."""
    return (RunFolder(folder).read_json("result.json") or {}).get("status") == "finished"
