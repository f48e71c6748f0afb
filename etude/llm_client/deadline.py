"""HTTP requests with a deadline for the whole request.

The time-out of urllib applies to each socket operation, so a server that sends a byte now and then never times out. Here the time runs from
the beginning of the request to the last byte of the body: sending, a proxy's reply, status lines and headers (a row of `100 Continue` too),
body. Before every operation the socket gets the time that is left. Not covered: the look-up of the host's name, and a second address of the
host, which is tried after the first with the whole time again.
"""

import io
import socket
import time
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, Request

_AT_ONCE_BYTES = 1 << 16


class DeadlineExceeded(TimeoutError):
    """The deadline passed before the reply was complete."""


class HTTPByDeadline(HTTPHandler):
    """Handler of http addresses for `urllib.request.build_opener`."""

    def http_open(self, req: Request) -> Any:
        """Open a request with a deadline."""
        return self.do_open(_PlainConnection, req)  # type: ignore[arg-type]


class HTTPSByDeadline(HTTPSHandler):
    """Handler of https addresses for `urllib.request.build_opener`."""

    def https_open(self, req: Request) -> Any:
        """Open a request with a deadline."""
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[arg-type, attr-defined]


def _left(deadline: float) -> float:
    """Return the seconds until `deadline` (a time of `time.monotonic`). Raises Late if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("timed out")
    return left


class _Reader(io.RawIOBase):
    """A raw stream of what a socket receives until the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._file, self._deadline = sock, sock.makefile("rb", buffering=0), deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        except TimeoutError:
            raise DeadlineExceeded("timed out") from None

    def close(self) -> None:
        self._file.close()
        super().close()


class _Timed:
    """The part of a socket that an HTTP connection uses, with a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            self._sock.settimeout(_left(self._deadline))
            try:
                unsent = unsent[self._sock.send(unsent[:_AT_ONCE_BYTES]) :]
            except TimeoutError:
                raise DeadlineExceeded("timed out") from None

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


def _response(sock: Any, *args: Any, deadline: float, **named: Any) -> HTTPResponse:
    return HTTPResponse(sock if isinstance(sock, _Timed) else _Timed(sock, deadline), *args, **named)  # type: ignore[arg-type]


class _Connection(HTTPConnection):
    """An HTTP connection whose `timeout` covers the whole request, and starts when it is made."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        assert isinstance(self.timeout, (int, float))
        self._deadline = time.monotonic() + self.timeout
        self.response_class = partial(_response, deadline=self._deadline)  # type: ignore[assignment]

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_left(self._deadline))  # the time of a handshake that comes next


class _PlainConnection(_Connection):
    def connect(self) -> None:
        super().connect()
        self.sock = _Timed(self.sock, self._deadline)  # type: ignore[assignment]


class _SecureConnection(HTTPSConnection, _Connection):
    """An HTTPS connection with a deadline; the TLS handshake comes between the two `connect`."""

    def connect(self) -> None:
        super().connect()
        self.sock = _Timed(self.sock, self._deadline)  # type: ignore[assignment]
