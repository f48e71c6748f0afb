"""Settings of the server. Every field is a `--key` of the command line; without torch, so that they are read and checked without it."""

import os
from dataclasses import dataclass, field

from etude.device.machine_settings import Machine
from etude.errors import UserError, at_least

COMMON = ("host", "port", "name", "api_key_env", "max_rows", "max_new_tokens", "max_waiting", "machine.device", "machine.dtype")
"""The settings that help shows first."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the server: address, access and limits."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only. Another one needs a key (api_key_env)."""
    port: int = 8000
    """Port; 0 = a free one."""
    name: str | None = None
    """Name of the model in requests; null = that of its folder."""
    api_key_env: str | None = None
    """Environment variable with the key that clients must send (`Authorization: Bearer KEY`); null = none is asked for."""
    max_rows: int = 32
    """Most samples that are decoded together."""
    max_new_tokens: int = 1024
    """Most tokens of an answer; there is memory for max_rows answers of this length, which is taken as they grow."""
    max_waiting: int = 256
    """Most requests that wait; the next one is refused with status 429."""
    max_samples: int = 16
    """Most samples of a request (n times prompts); times max_new_tokens, the most tokens that a method or a search samples for it."""
    max_body_bytes: int = 2 * 2**20
    """Largest body of a request."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("port", self.port, 0)
        for name in ("max_rows", "max_new_tokens", "max_waiting", "max_samples", "max_body_bytes"):
            at_least(name, getattr(self, name), 1)
        if self.max_samples > self.max_rows:
            raise UserError(f"max_samples is {self.max_samples}, more than max_rows, {self.max_rows}: a request must fit into the batch")
        if self.host not in LOOPBACK and self.api_key_env is None:
            raise UserError(
                f"host {self.host} is reached from other machines: set api_key_env to an environment variable with a key, or leave host out"
            )

    @property
    def api_key(self) -> str | None:
        """The key that clients must send. Raises UserError if its variable is not set."""
        if self.api_key_env is None:
            return None
        if not os.environ.get(self.api_key_env):
            raise UserError(f"api_key_env: the environment variable {self.api_key_env} is not set: put the key into it")
        return os.environ[self.api_key_env]
