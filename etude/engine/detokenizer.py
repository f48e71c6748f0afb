"""The text of tokens as they come: only what is certain, and what each token adds costs the same however long the text is."""

from collections.abc import Callable, Sequence

_LONGEST_CHARACTER = 8
"""Tokens after which an unfinished character is taken as it is: it will not become one."""


class Detokenizer:
    """Turns the tokens of one completion into text, up to the first of its stop texts.

    A piece of text is decoded together with the piece before it, since a token's text depends on what it follows (a leading space). Text
    that may be the beginning of a stop text, or of a character, is held back.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str], stop: Sequence[str] = ()) -> None:
        self._text_of, self._stop = text_of, stop
        self._before: list[int] = []
        """Tokens of the last piece, whose text is known."""
        self._new: list[int] = []
        """Tokens after them, whose text is not."""
        self._held = ""
        """Text that is known and not told."""
        self.is_stopped = False

    def put(self, token: int) -> str:
        """Take the next token; return the text that is certain now and was not before: none after a stop text."""
        if self.is_stopped:
            return ""
        self._new.append(token)
        added = self._added()
        if added.endswith("\ufffd") and len(self._new) < _LONGEST_CHARACTER:
            return ""
        self._held += added
        self._before, self._new = self._new, []
        return self._certain()

    def rest(self) -> str:
        """Return the text that was held back; after a stop text there is none."""
        if self.is_stopped:
            return ""
        self._held += self._added()
        text = self._certain()
        text, self._held = text + self._held, ""
        return text

    def _added(self) -> str:
        """Return the text of the new tokens after the last piece."""
        before = self._text_of(self._before) if self._before else ""
        return self._text_of([*self._before, *self._new])[len(before) :] if self._new else ""

    def _certain(self) -> str:
        """Take what can no longer change from the text that is held."""
        places = [self._held.find(text) for text in self._stop if text in self._held]
        if places:
            self.is_stopped = True
            text, self._held = self._held[: min(places)], ""
            return text
        open_at = [
            len(self._held) - length
            for text in self._stop
            for length in range(1, min(len(text), len(self._held) + 1))
            if self._held.endswith(text[:length])
        ]
        end = min([len(self._held), *open_at])
        text, self._held = self._held[:end], self._held[end:]
        return text
