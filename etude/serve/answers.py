"""A request's prompts → its choices, as they come: what the engine's thread tells, for a coroutine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from etude.engine.continuous import Ended, Likely


@dataclass
class Choice:
    """An answer to a prompt."""

    text: str = ""
    likely: list[Likely] = field(default_factory=list)
    finish: Ended | None = None
    num_tokens: int = 0


@dataclass(frozen=True)
class Piece:
    """What a token, or the end, adds to a choice."""

    place: int
    """The number of the choice."""
    text: str
    likely: Likely | None = None
    finish: Ended | None = None


class Inbox:
    """The choices of a request, and the pieces that have come. Without `streams`, only ends are handed over."""

    def __init__(self, number: int, *, streams: bool) -> None:
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception]()
        self.choices = [Choice() for _ in range(number)]
        self._streams = streams

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what comes, until all choices have ended. Raises what the request failed with."""
        left = len(self.choices)
        while left:
            piece = await self._queue.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece.finish is not None
            yield piece

    def add(self, piece: Piece, num_tokens: int = 0) -> None:
        """Add a piece to its choice, from any thread."""
        choice = self.choices[piece.place]
        choice.text += piece.text
        if piece.likely is not None:
            choice.likely.append(piece.likely)
        if piece.finish is not None:
            choice.finish, choice.num_tokens = piece.finish, num_tokens
        if piece.finish is not None or (self._streams and (piece.text or piece.likely)):
            self.tell(piece)

    def tell(self, piece: Piece | Exception) -> None:
        """Hand a piece or an error to the coroutine, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)


@dataclass(frozen=True)
class PromptReceiver:
    """The receiver of one prompt's samples (`etude.engine.continuous.Receiver`), whose choices begin at `first`."""

    inbox: Inbox
    first: int

    def token(self, sample: int, text: str, found: Likely | None) -> None:
        self.inbox.add(Piece(self.first + sample, text, found))

    def end(self, sample: int, text: str, finish: Ended, num_tokens: int) -> None:
        self.inbox.add(Piece(self.first + sample, text, None, finish), num_tokens)

    def fail(self, error: Exception) -> None:
        self.inbox.tell(error)
