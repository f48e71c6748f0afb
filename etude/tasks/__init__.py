"""Tasks for practice, their sources, and verifiers that check answers.

The names are imported on first use, so that a process which only verifies never imports a source. `overlap` has the name of its module and
is imported from there: `from etude.tasks.overlap import overlap`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.tasks.functions import load_function
    from etude.tasks.overlap import distinct_share, estimate_space
    from etude.tasks.sources import TaskSource, load_tasks
    from etude.tasks.task import Task
    from etude.tasks.verifiers import VERIFIERS, check_gold

__all__ = ["VERIFIERS", "Task", "TaskSource", "check_gold", "distinct_share", "estimate_space", "load_function", "load_tasks"]

_HOMES = {
    "Task": "etude.tasks.task",
    "TaskSource": "etude.tasks.sources",
    "VERIFIERS": "etude.tasks.verifiers",
    "check_gold": "etude.tasks.verifiers",
    "distinct_share": "etude.tasks.overlap",
    "estimate_space": "etude.tasks.overlap",
    "load_function": "etude.tasks.functions",
    "load_tasks": "etude.tasks.sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'etude.tasks' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
