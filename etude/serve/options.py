"""The options of a request that are etude's own: `decoding`, `search`, `thought` and `kv_cache`, the settings of `etude generate`.

Each is read like a settings file, and what would have no effect is refused: nobody measures a setting that was ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from etude.decoding.search_settings import AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.errors import UserError, at_least, unknown
from etude.kv_cache.settings import KVCacheSettings
from etude.rollouts.thinking import Thought
from etude.serve.protocol import Refused
from etude.settings.arguments import arguments_from
from etude.settings.configuration import flatten, parse
from etude.tasks.task import text_problem

Option = TypeVar("Option")
_SERVERS = {"decoding": ("embedder",), "kv_cache": ("folder", "offload")}
"""Settings that name files or models, which a client may not choose."""


@dataclass(frozen=True)
class RequestedSearch(AnswerSearch):
    """A search with the number of its samples, which is `num_samples` of `etude generate`."""

    num_samples: int = 4
    """`samples`: answers to choose from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("search.num_samples", self.num_samples, 2)

    @property
    def unread(self) -> set[str]:
        return super().unread - {"num_samples"} | (set() if self.method == "samples" else {"num_samples"})


OPTIONS: Mapping[str, type[Any]] = {
    "decoding": ReliableDecoding,
    "search": RequestedSearch,
    "thought": Thought,
    "kv_cache": KVCacheSettings,
}
"""The options of a request, with their settings."""


def options_of(named: Mapping[str, Mapping[str, Any]], asked: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return the settings of every option: those that a model's name chooses (`etude.serve.aliases`), then those asked for. Raises Refused
    for wrong settings, for those without effect, and for those that are the server's.
    """
    return {name: _read(name, kind, {**named.get(name, {}), **(asked.get(name) or {})}) for name, kind in OPTIONS.items()}


def _read(name: str, kind: type[Option], given: Mapping[str, Any]) -> Option:
    if theirs := [f"{name}.{each}" for each in _SERVERS.get(name, ()) if each in given]:
        raise Refused(f"{' and '.join(theirs)}: the server's to set, not a request's: leave out", param=name)
    try:
        known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
        if wrong := [each for each in given if each not in known]:
            raise unknown("setting", wrong[0], known)
        flat = flatten(given)
        for key, value in flat.items():
            if isinstance(value, str) and (problem := text_problem(value)):
                raise UserError(f"{key} {problem}")
        settings = parse(kind, None, arguments_from(flat))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{name}: {' '.join(str(error).replace('--', '').split())}", param=name) from None
    unread = getattr(settings, "unread")  # noqa: B009  # all kinds have it
    if ignored := [key for key in flat if key in unread or f"{key.partition('.')[0]}." in unread]:
        raise Refused(f"{name}.{ignored[0]} has no effect here: leave it out", param=name)
    return settings
