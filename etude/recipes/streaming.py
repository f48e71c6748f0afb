"""An answer that is written while it is drawn."""

from collections.abc import Callable, Sequence


class AnswerStream:
    """Writes what is certain so far: whole characters, and nothing that may yet turn out to be the beginning of a stop string."""

    def __init__(self, text_of: Callable[[Sequence[int]], str], write: Callable[[str], None], stop: Sequence[str] = ()) -> None:
        self._text_of, self._write, self._stop = text_of, write, stop
        self._tokens: list[int] = []
        self.written = ""

    def hear(self, token: int) -> None:
        """Another token."""
        self._tokens.append(token)
        text = self._text_of(self._tokens)
        if not text.endswith("\ufffd"):  # the first bytes of a character
            self._say(text[: _certain(text, self._stop)])

    def end(self, text: str) -> None:
        """The answer, whole: what is not written of it yet. An answer that was not drawn just now, but chosen, is written here."""
        if not text.startswith(self.written):
            self._write("\n")
            self.written = ""
        self._say(text)

    def _say(self, text: str) -> None:
        if len(text) > len(self.written):
            self._write(text[len(self.written) :])
            self.written = text


def _certain(text: str, stop: Sequence[str]) -> int:
    """How much of the text stays, whatever follows: up to a stop string, or to where one may have begun.

    >>> _certain("It is 4\\n", ["\\n\\n"]), _certain("4\\n\\nQ", ["\\n\\n"]), _certain("It is 4", [])
    (7, 1, 7)
    """
    ends = [text.find(each) for each in stop if each in text]
    for each in stop:
        ends += [len(text) - length for length in range(1, len(each)) if text.endswith(each[:length])]
    return min([len(text), *ends])
