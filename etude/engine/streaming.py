"""Writes text while its tokens are sampled."""

from collections.abc import Callable, Sequence


class TextStreamer:
    """Writes only text that can no longer change: whole characters, without a possible beginning of a stop string."""

    def __init__(self, text_of: Callable[[Sequence[int]], str], write: Callable[[str], None], stop: Sequence[str] = ()) -> None:
        self._text_of, self._write, self._stop = text_of, write, stop
        self._tokens: list[int] = []
        self.written = ""

    def put(self, token: int) -> None:
        """Take the next token."""
        self._tokens.append(token)
        text = self._text_of(self._tokens)
        if not text.endswith("\ufffd"):  # the first bytes of a character
            self._write_up_to(text[: _certain(text, self._stop)])

    def end(self, text: str) -> None:
        """Write the rest of the final answer. If a different answer was chosen in the end, write it on a new line."""
        if not text.startswith(self.written):
            self._write("\n")
            self.written = ""
        self._write_up_to(text)

    def _write_up_to(self, text: str) -> None:
        if len(text) > len(self.written):
            self._write(text[len(self.written) :])
            self.written = text


def _certain(text: str, stop: Sequence[str]) -> int:
    """Return how many characters are final: those before a stop string, or before a possible beginning of one.

    >>> _certain("It is 4\\n", ["\\n\\n"]), _certain("4\\n\\nQ", ["\\n\\n"]), _certain("It is 4", [])
    (7, 1, 7)
    """
    ends = [text.find(each) for each in stop if each in text]
    for each in stop:
        ends += [len(text) - length for length in range(1, len(each)) if text.endswith(each[:length])]
    return min([len(text), *ends])
