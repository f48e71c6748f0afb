"""HTTP requests that end with their time, whatever the server does.

The time-out of urllib is one for each operation of a socket, so that a server which sends a byte now and then is never late. Here it is the
time of the request from its beginning to the last byte of the body: sending, a proxy's reply, status lines and headers (a row of
`100 Continue` among them), body. Before every operation the socket gets the time that is left. Not covered: the look-up of the host's name,
and a second address of the host, which is tried after the first and has the whole time again.
"""

import io
import socket
import time
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, Request

_AT_ONCE_BYTES = 1 << 16


class Late(TimeoutError):
    """The time of a request was over before its reply was whole."""


class HTTPByDeadline(HTTPHandler):
    """For `urllib.request.build_opener`: http addresses."""

    def http_open(self, req: Request) -> Any:
        return self.do_open(_PlainConnection, req)  # type: ignore[arg-type]


class HTTPSByDeadline(HTTPSHandler):
    """For `urllib.request.build_opener`: https addresses."""

    def https_open(self, req: Request) -> Any:
        return self.do_open(_SecureConnection, req, context=self._context)  # type: ignore[arg-type, attr-defined]


def _left(deadline: float) -> float:
    """Seconds until a time of `time.monotonic`. Raises Late where there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise Late("timed out")
    return left


class _Reader(io.RawIOBase):
    """What a socket receives until the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._file, self._deadline = sock, sock.makefile("rb", buffering=0), deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined, no-any-return]
        except TimeoutError:
            raise Late("timed out") from None

    def close(self) -> None:
        self._file.close()
        super().close()


class _Timed:
    """The part of a socket that an HTTP connection uses, until the deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        unsent = memoryview(data)
        while unsent:
            self._sock.settimeout(_left(self._deadline))
            try:
                unsent = unsent[self._sock.send(unsent[:_AT_ONCE_BYTES]) :]
            except TimeoutError:
                raise Late("timed out") from None

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


def _response(sock: Any, *args: Any, deadline: float, **named: Any) -> HTTPResponse:
    return HTTPResponse(sock if isinstance(sock, _Timed) else _Timed(sock, deadline), *args, **named)  # type: ignore[arg-type]


class _Connection(HTTPConnection):
    """Its `timeout` is that of the whole request, and begins here."""

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
    """The handshake comes between the two `connect`."""

    def connect(self) -> None:
        super().connect()
        self.sock = _Timed(self.sock, self._deadline)  # type: ignore[assignment]
