"""Settings of `etude watch`: the address of its page."""

from dataclasses import dataclass

from etude.errors import UserError, at_least

_EVERY_ADDRESS = ("", "0.0.0.0", "::", "*")


@dataclass(frozen=True)
class WatchSettings:
    """Settings of the page of a run that is being written."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine only. Whoever reaches another one can read the run."""
    port: int = 8010
    """Port; 0 = a free one."""

    def __post_init__(self) -> None:
        at_least("port", self.port, 0)
        if self.host in _EVERY_ADDRESS:
            raise UserError(
                f"host {self.host!r} is every address of this machine: name the one that the browser opens, since other names are refused"
            )
