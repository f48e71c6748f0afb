"""Exchange lines over a socket without either side ever waiting for the other to read."""

import select
import socket
import time
from contextlib import suppress

GONE = b""
"""The result if the other side has gone, or wrote a line that is too long or empty."""
_AT_ONCE_BYTES = 1 << 16


class Lines:
    """An end of a pair of sockets, read and written by lines."""

    def __init__(self, sock: socket.socket, longest_bytes: int) -> None:
        self._sock, self._longest_bytes = sock, longest_bytes
        self._unsent, self._unread = memoryview(b""), bytearray()
        sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._is_writing = False

    def send(self, data: bytes, passed: socket.socket | None = None) -> None:
        """Queue lines; they are written while `receive` waits. With a socket to pass on they must be short."""
        self._unsent = memoryview(data)
        if passed is not None:
            with suppress(OSError):  # reading tells that it is gone
                self._unsent = self._unsent[socket.send_fds(self._sock, [self._unsent], [passed.fileno()]) :]
        self._write()

    def receive(self, deadline: float) -> bytes | None:
        """Return the next line, GONE, or None at the deadline (a time of `time.monotonic`)."""
        looked = 0
        while (end := self._unread.find(b"\n", looked)) < 0:
            looked = len(self._unread)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if looked > self._longest_bytes:
                return GONE
            for _, events in self._poll.poll(left * 1000):
                if events & select.POLLOUT:
                    self._write()
                if events & ~select.POLLOUT and not self._read():
                    return GONE
        line, self._unread = bytes(self._unread[:end]), self._unread[end + 1 :]
        return line

    def is_silent(self) -> bool:
        """Return whether nothing can be read, not even the end of the connection."""
        return not self._unread and not any(events & ~select.POLLOUT for _, events in self._poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _read(self) -> bool:
        """Read what has arrived; return False if the other side is gone."""
        try:
            data = self._sock.recv(_AT_ONCE_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._unread += data
        return bool(data)

    def _write(self) -> None:
        """Write what the socket accepts now, and poll it for writing only while something is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent[:_AT_ONCE_BYTES]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = memoryview(b"")  # reading tells that it is gone
        if bool(self._unsent) != self._is_writing:
            self._is_writing = bool(self._unsent)
            self._poll.modify(self._sock, select.POLLIN | (select.POLLOUT if self._is_writing else 0))
