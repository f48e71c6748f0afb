"""What a domain is measured by, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, field

from etude.device.machine_settings import Machine
from etude.errors import at_least


@dataclass(frozen=True)
class DomainSuite:
    """Questions of a domain, of its neighbours and of the rest, and general text."""

    questions: list[str] = field(default_factory=list)
    """Files of the domain's questions."""
    choices_where: dict[str, str] = field(default_factory=dict)
    """Columns by which rows with choices are known, such as {type: mcq}; all rows unless given."""
    open_where: dict[str, str] = field(default_factory=dict)
    """Columns by which open questions are known, such as {type: open}; none unless given."""
    split_by: str | None = None
    """A column by which the domain's files are split, such as section (`tasks.split_by`)."""
    split: str = "test"
    """The split that is measured, of `split_by` and of `{split}` in a path."""
    glossary: list[str] = field(default_factory=list)
    """Files with the columns term, definition and perhaps section; split by `split_by` where they have that column, whole where not."""
    near: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, choices, answer) to the columns of all files of questions."""
    n: int | None = None
    """Questions of each file of near and far, at equal distances; all unless given."""
    glossary_n: int | None = None
    """Terms of each glossary, the same."""
    said_n: int = 0
    """So many of each glossary and file with open questions, at equal distances, are also answered in words, greedily, and compared with
    the right answer by the words in common (the verifier `words`); 0: none."""
    text: list[str] = field(default_factory=list)
    """Text files, or rows with a column `text`."""
    text_tokens: int = 16384
    """Tokens of each text at most."""
    window_tokens: int = 256
    """Length of the pieces that a text is read in, each without the ones before."""

    def __post_init__(self) -> None:
        for name in ("n", "glossary_n"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        at_least("said_n", self.said_n, 0)
        at_least("text_tokens", self.text_tokens, 2)
        at_least("window_tokens", self.window_tokens, 3)


@dataclass(frozen=True)
class MeasuredDomain(DomainSuite):
    """The suite as it is measured by itself; an adaptation measures it where it learns."""

    machine: Machine = field(default_factory=Machine)
