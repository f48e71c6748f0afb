"""Settings and types of a chat model: on an OpenAI-compatible server (`etude.llm_client.endpoint`), or loaded here."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from etude.errors import UserError, at_least

_OF_SERVERS = ("api_key_env", "timeout_seconds", "retries", "concurrency")

Messages = Sequence[Mapping[str, str]]


class Reply(NamedTuple):
    """The reply of a chat model."""

    text: str | None
    problem: str = ""
    """The reason if there is no text."""
    retries: int = 0
    """Number of retries."""
    is_cut_off: bool = False
    """Whether it reached the maximal length."""


Ask = Callable[[Sequence[Messages]], Sequence[Reply]]
"""A function that sends many conversations to a model and returns a reply to each, in order."""


@dataclass(frozen=True)
class ChatModel:
    """Settings of a chat model; subclasses add settings for their use, and name their section."""

    section: ClassVar[str]
    """The name of the settings, and of the model in messages: `judge`, `writer`."""

    model: str | None = None
    """Name of the model on the server `url`, or, without a url, a model to load here (a bundled name, a folder, a .gguf file or a hub id).
    """
    url: str | None = None
    """Base address of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1."""
    api_key_env: str | None = None
    """Environment variable that holds the server's API key; null = send no key. The key itself is written nowhere."""
    temperature: float = 0.0
    """0 = greedy decoding."""
    max_new_tokens: int = 512
    """Longest reply in tokens; one that is cut off there is not used."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """More fields of the server's requests; null removes one: {max_tokens: null, max_completion_tokens: 2048}."""
    timeout_seconds: float = 60.0
    """Time limit of one reply from the server, in seconds; a request that exceeds it is not retried."""
    retries: int = 4
    """Retries after status 429, 5xx or a broken connection, with doubling waits."""
    concurrency: int = 8
    """Concurrent requests."""

    def __post_init__(self) -> None:
        for name, bound in {"max_new_tokens": 1, "retries": 0, "concurrency": 1}.items():
            at_least(f"{self.section}.{name}", getattr(self, name), bound)
        if not self.timeout_seconds > 0:
            raise UserError(f"{self.section}.timeout_seconds must be above 0, got {self.timeout_seconds}")
        if self.temperature < 0:
            raise UserError(f"{self.section}.temperature must be 0 (greedy) or more, got {self.temperature}")
        if self.url is not None:
            self._check_url(self.url)
        elif of_server := [name for name in self.changed_settings() if name in _OF_SERVERS]:
            raise UserError(f"{self.section}.{of_server[0]} has no effect without {self.section}.url: name the server, or leave it out")

    def changed_settings(self) -> list[str]:
        """Return the names of the settings that differ from their defaults."""
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
                f"{self.section}.api_key_env"
            )


def _default(each: "Field[Any]") -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default
