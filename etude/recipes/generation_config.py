"""How a model is asked: a saved model remembers what stood before and behind each question, the length and the sampling.

A folder that practice wrote holds them in `etude.yaml`, as settings that `etude evaluate` and `etude generate` share: both ask the model as
its run did unless they are told otherwise, but that `generate` samples nothing by itself. Nothing in that file names code or other files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.recipes.settings import PracticeSettings
from etude.settings.configuration import resolved
from etude.settings.yaml_text import write_yaml
from etude.training.run_folder import write_atomically

FILE = "etude.yaml"
_ASKING = ("system", "instruction", "max_new_tokens")
_HEAD = "# How this model was asked while it practised; evaluate and generate ask it so unless they are told otherwise.\n"


def generation_config_of(settings: PracticeSettings) -> dict[str, Any]:
    """System message, instruction, longest answer and sampling of a practice run, under the names that evaluate and generate have."""
    longest = settings.evaluation.max_new_tokens or settings.explore.max_new_tokens
    asked = {"system": settings.system, "instruction": settings.tasks.actions.words or None}
    return asked | {"max_new_tokens": longest, "sampling": resolved(settings.explore.sampling)}


def save_generation_config(folder: Path, settings: PracticeSettings) -> None:
    """Write how the model of this folder is asked."""
    write_atomically(folder / FILE, _HEAD + write_yaml(generation_config_of(settings)))


def find_generation_config(model: str) -> Path | None:
    """The file that says how a saved model is asked, if it has one."""
    path = Path(model) / FILE
    return path if path.is_file() else None


def checked_generation_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a model's folder may set, all of them; raises UserError where there is another, as in a folder from a stranger."""
    for name in values:
        if name not in _ASKING and not name.startswith("sampling."):
            raise UserError(f"the model's {FILE} sets {name}; it may set only {', '.join(_ASKING)} and sampling: remove that line")
    return dict(values)
