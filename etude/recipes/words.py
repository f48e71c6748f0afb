"""The words that follow each command of `etude`, for its completion in a shell."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etude.console.completion import SHELLS
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.evaluate_settings import OWN_SHORT, EvaluateSettings
from etude.recipes.generate_settings import SHORT as GENERATE
from etude.recipes.generate_settings import GenerateSettings
from etude.recipes.watch_settings import WatchSettings
from etude.serve.settings import ServeSettings
from etude.settings.configuration import settings_of, shipped_configurations
from etude.training.parse import SHORT
from etude.training.settings import PracticeSettings

_EXPORT = ("--format", "--quantization", "--evaluate", "--recipe", "--data", "--json", "--force")
_SHARED = ("--run", "--data", "--json", "--force", "--quiet", "--verbose")


def words_of_commands(commands: Iterable[str]) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    """Return the first words of each command, such as recipes, and its options."""
    found: dict[str, tuple[Sequence[str], Sequence[str]]] = {
        "practice": ([*shipped_configurations("practice")], _options(PracticeSettings, SHORT, "--resume", "--dry-run", "--track")),
        "adapt": ([*shipped_configurations("adapt")], _options(AdaptSettings, {}, "--resume", "--dry-run")),
        "evaluate": ([], _options(EvaluateSettings, OWN_SHORT, "--suite")),
        "generate": ([], _options(GenerateSettings, GENERATE, "--page")),
        "serve": ([], [f"--{name}" for name in settings_of(ServeSettings)]),
        "report": ([], ["--out", "--pack", "--force"]),
        "watch": ([], [f"--{name}" for name in settings_of(WatchSettings)]),
        "models": (["list", "fetch", "convert", "interpolate", "export"], ["--factor", "--groups", "--out", *_EXPORT]),
        "recipes": (["list", "show"], []),
        "completion": (SHELLS, []),
    }
    return found | {name: ([], []) for name in commands if name not in found}


def _options(kind: type[Any], short: Mapping[str, str], *more: str) -> list[str]:
    return [*_SHARED, *more, *(f"--{name.removeprefix('callbacks.')}" for name in [*short, *settings_of(kind)])]
