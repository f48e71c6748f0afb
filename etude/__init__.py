"""etude: language models get better by practising.

The names below are the public API. They load on first use, so that `etude --help` and the verifiers' child processes never wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.errors import UserError
    from etude.recipes.adapt import adapt
    from etude.recipes.evaluate import evaluate
    from etude.recipes.generate import generate
    from etude.recipes.practice import practice
    from etude.tasks.task import Task
    from etude.training.callback import Callback, Decision

__version__ = "0.1.0"
__all__ = ["Callback", "Decision", "Task", "UserError", "adapt", "evaluate", "generate", "practice"]

_HOMES = {
    "Callback": "etude.training.callback",
    "Decision": "etude.training.callback",
    "Task": "etude.tasks.task",
    "UserError": "etude.errors",
    "adapt": "etude.recipes.adapt",
    "evaluate": "etude.recipes.evaluate",
    "generate": "etude.recipes.generate",
    "practice": "etude.recipes.practice",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
