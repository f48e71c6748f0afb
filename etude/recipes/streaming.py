"""Stream an answer while it is sampled."""

from collections.abc import Callable, Sequence


class AnswerStream:
    """Writes what is certain so far: whole characters, and nothing that may become a stop string."""

    def __init__(self, text_of: Callable[[Sequence[int]], str], write: Callable[[str], None], stop: Sequence[str] = ()) -> None:
        self._text_of, self._write, self._stop = text_of, write, stop
        self._tokens: list[int] = []
        self.written = ""

    def hear(self, token: int) -> None:
        """Add a token."""
        self._tokens.append(token)
        text = self._text_of(self._tokens)
        if not text.endswith("\ufffd"):  # the first bytes of a character
            self._say(text[: _certain(text, self._stop)])

    def end(self, text: str) -> None:
        """Write the rest of the answer, or all of an answer that was chosen after sampling."""
        if not text.startswith(self.written):
            self._write("\n")
            self.written = ""
        self._say(text)

    def _say(self, text: str) -> None:
        if len(text) > len(self.written):
            self._write(text[len(self.written) :])
            self.written = text


def _certain(text: str, stop: Sequence[str]) -> int:
    """Return the length of the text that stays, whatever follows: up to a stop string, or to where one may have begun.

    >>> _certain("It is 4\\n", ["\\n\\n"]), _certain("4\\n\\nQ", ["\\n\\n"]), _certain("It is 4", [])
    (7, 1, 7)
    """
    ends = [text.find(each) for each in stop if each in text]
    for each in stop:
        ends += [len(text) - length for length in range(1, len(each)) if text.endswith(each[:length])]
    return min([len(text), *ends])
