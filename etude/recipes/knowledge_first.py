"""An adaptation before practice: one recipe of knowledge, warm start, practice and evaluation.

The adaptation is a run of its own in the practice run's folder `knowledge`, with practice's model and seed, and is gone on with where it
was interrupted. Practice begins from its model.
"""

from pathlib import Path

from etude.configuration import arguments_from, find_configuration
from etude.errors import UserError
from etude.recipes.adapt import adapt_named
from etude.recipes.adapt_settings import AdaptSettings, parse_adapt
from etude.recipes.settings import PracticeSettings
from etude.runs import RunFolder
from etude.watching import Watcher

FOLDER = "knowledge"


def adaptation_of(settings: PracticeSettings) -> AdaptSettings | None:
    """The settings of the adaptation that comes first, None without one. Raises UserError for settings that are none."""
    if settings.adaptation is None:
        return None
    if clash := {"model", "seed"} & settings.adaptation_settings.keys():
        raise UserError(f"adaptation_settings.{min(clash)} is practice's own: set {min(clash)} there")
    changes = {"seed": settings.seed, "model": settings.model, **settings.adaptation_settings}
    return parse_adapt(find_configuration("adapt", settings.adaptation), arguments_from(changes))


def adapted(settings: AdaptSettings, name: str, run: Path, data: Path | None, watcher: Watcher) -> Path:
    """The folder of the adapted model; made, gone on with, or found."""
    folder = run / FOLDER
    if (RunFolder(folder).read_json("result.json") or {}).get("status") != "finished":
        is_begun = (folder / "configuration.yaml").exists()
        adapt_named(settings, name, run=folder, data=data, resume=is_begun, watcher=watcher)
    return folder / "model"
