"""Writes text while its tokens are sampled."""

from collections.abc import Callable, Sequence

from etude.engine.detokenizer import Detokenizer


class TextStreamer:
    """Writes only text that can no longer change (`etude.engine.detokenizer`)."""

    def __init__(self, text_of: Callable[[Sequence[int]], str], write: Callable[[str], None], stop: Sequence[str] = ()) -> None:
        self._text, self._write = Detokenizer(text_of, stop), write
        self.written = ""

    def put(self, token: int) -> None:
        """Take the next token."""
        self._write_more(self._text.put(token))

    def end(self, text: str) -> None:
        """Write the rest of the final answer. If a different answer was chosen in the end, write it on a new line."""
        if not text.startswith(self.written):
            self._write("\n")
            self.written = ""
        self._write_more(text[len(self.written) :])

    def _write_more(self, text: str) -> None:
        if text:
            self._write(text)
            self.written += text
