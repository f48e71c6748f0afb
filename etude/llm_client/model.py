"""A model that is asked by chat messages: on an OpenAI-compatible server (`etude.llm_client.endpoint`), or loaded here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from etude.errors import UserError, at_least

_OF_SERVERS = ("key_variable", "timeout_seconds", "retries", "concurrency")

Messages = Sequence[Mapping[str, str]]


class Reply(NamedTuple):
    """What a model said."""

    text: str | None
    problem: str = ""
    """Why there is no text."""
    retries: int = 0
    """How often it was asked again."""
    is_cut_off: bool = False
    """Whether its longest length ended it."""


Ask = Callable[[Sequence[Messages]], Sequence[Reply]]
"""Puts chat messages to a model, many conversations at once: a reply to each, in order."""


@dataclass(frozen=True)
class ChatModel:
    """Which model is asked, and how it is reached; what it is asked for gives the settings their section's name."""

    section: ClassVar[str]
    """What the settings are called, and who answers: `judge`, `writer`."""

    model: str | None = None
    """Who is asked: the model's name on the server `url`, or, without one, a model to load here (a bundled name, a folder, a .gguf file or
    a hub id)."""
    url: str | None = None
    """Base address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."""
    key_variable: str | None = None
    """Name of the environment variable that holds the server's API key; no key is sent unless given. The key itself is written nowhere."""
    temperature: float = 0.0
    max_new_tokens: int = 512
    """Longest reply; one that is cut off there is not read."""
    request: dict[str, Any] = field(default_factory=dict)
    """More fields for the server's requests; null leaves one out: {max_tokens: null, max_completion_tokens: 2048}."""
    timeout_seconds: float = 60.0
    """Time for one reply of the server; a request that took longer is not made again."""
    retries: int = 4
    """How often a request is made again after status 429, 5xx or a broken connection, each time waiting twice as long."""
    concurrency: int = 8
    """Requests at once."""

    def __post_init__(self) -> None:
        for name, bound in {"max_new_tokens": 1, "retries": 0, "concurrency": 1}.items():
            at_least(f"{self.section}.{name}", getattr(self, name), bound)
        if not self.timeout_seconds > 0:
            raise UserError(f"{self.section}.timeout_seconds must be above 0, got {self.timeout_seconds}")
        if self.temperature < 0:
            raise UserError(f"{self.section}.temperature must be 0 (greedy) or more, got {self.temperature}")
        if self.url is not None:
            self._check_url(self.url)
        elif of_server := [name for name in self.told() if name in _OF_SERVERS]:
            raise UserError(f"{self.section}.{of_server[0]} has no effect without {self.section}.url: name the server, or leave it out")

    def told(self) -> list[str]:
        """The settings that are not what they are where nobody says otherwise."""
        return [each.name for each in fields(self) if getattr(self, each.name) != _default(each)]

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or not re.fullmatch(r"[!-~]+", url):
            raise UserError(f"{self.section}.url must be the base address of a server, such as http://127.0.0.1:8000/v1, got {url!r}")
        if parts.username is not None or parts.query or parts.fragment:
            raise UserError(
                f"{self.section}.url must be an address alone, without a user, a password or a query: name the key's variable in "
                f"{self.section}.key_variable"
            )


def _default(each: "Field[Any]") -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default
