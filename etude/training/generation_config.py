"""The generation config of a saved model: its system message, instruction, answer length and sampling.

A folder that practice wrote holds them in `etude.yaml`, as settings that `etude evaluate` and `etude generate` share. Both prompt the model
as its run did unless set otherwise, except that `generate` decodes greedily. Nothing in that file names code or other files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import write_atomically
from etude.settings.configuration import to_plain_values
from etude.settings.yaml_text import write_yaml
from etude.training.settings import PracticeSettings

FILE = "etude.yaml"
_ASKING = ("system", "instruction", "max_new_tokens")
_HEAD = "# How this model was prompted in practice; evaluate and generate do the same unless told otherwise.\n"


def generation_config_of(settings: PracticeSettings) -> dict[str, Any]:
    """Return system message, instruction, longest answer and sampling of a practice run, under the names of evaluate and generate."""
    longest = settings.evaluation.max_new_tokens or settings.rollout.max_new_tokens
    asked = {"system": settings.system, "instruction": settings.tasks.actions.words or None}
    return asked | {"max_new_tokens": longest, "sampling": to_plain_values(settings.rollout.sampling)}


def save_generation_config(folder: Path, settings: PracticeSettings) -> None:
    """Write the generation config into a model's folder."""
    write_atomically(folder / FILE, _HEAD + write_yaml(generation_config_of(settings)))


def find_generation_config(model: str) -> Path | None:
    """Return the path of a saved model's generation config, if it has one."""
    path = Path(model) / FILE
    return path if path.is_file() else None


def checked_generation_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values after checking that a model's folder may set them.

    Raises UserError for any other setting: the folder may come from a stranger.
    """
    for name in values:
        if name not in _ASKING and not name.startswith("sampling."):
            raise UserError(f"the model's {FILE} sets {name}; it may set only {', '.join(_ASKING)} and sampling: remove that line")
    return dict(values)
