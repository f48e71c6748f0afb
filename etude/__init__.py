"""etude: language models get better by practising.

The names below are the public API. They load on first use, so that `etude --help` and the verifiers' child processes never wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.decoding.custom_generate import reliable
    from etude.errors import UserError
    from etude.kv_cache.attach import attach
    from etude.recipes.adapt import adapt
    from etude.recipes.evaluate import evaluate
    from etude.recipes.generate import generate
    from etude.recipes.practice import practice
    from etude.rewards.functions import in_process
    from etude.tasks.reward import Reward
    from etude.tasks.task import Task
    from etude.training.callback import Callback, Decision

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Decision",
    "Reward",
    "Task",
    "UserError",
    "adapt",
    "attach",
    "evaluate",
    "generate",
    "in_process",
    "practice",
    "reliable",
]

_HOMES = {
    "Callback": "etude.training.callback",
    "Decision": "etude.training.callback",
    "Reward": "etude.tasks.reward",
    "Task": "etude.tasks.task",
    "UserError": "etude.errors",
    "adapt": "etude.recipes.adapt",
    "attach": "etude.kv_cache.attach",
    "evaluate": "etude.recipes.evaluate",
    "generate": "etude.recipes.generate",
    "in_process": "etude.rewards.functions",
    "practice": "etude.recipes.practice",
    "reliable": "etude.decoding.custom_generate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'etude' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
