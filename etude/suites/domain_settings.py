"""Settings of the domain suite; does not import torch, so that they are read and checked without it."""

from dataclasses import dataclass, field

from etude.device.machine_settings import Machine
from etude.errors import at_least


@dataclass(frozen=True)
class DomainSuite:
    """Domain suite: questions of a domain, of neighbouring and other domains, and general text."""

    questions: list[str] = field(default_factory=list)
    """Files of the domain's questions."""
    choices_where: dict[str, str] = field(default_factory=dict)
    """Column values that select the rows with choices, such as {type: mcq}; empty = all rows."""
    open_where: dict[str, str] = field(default_factory=dict)
    """Column values that select the open questions, such as {type: open}; empty = none."""
    split_by: str | None = None
    """Column that the domain's files are split by, such as section (`tasks.split_by`)."""
    split: str = "test"
    """Split to measure on, of `split_by` and of `{split}` in a path."""
    glossary: list[str] = field(default_factory=list)
    """Files with the columns term, definition and optionally section; split by `split_by` if they have that column."""
    near_domain: list[str] = field(default_factory=list)
    """Files of questions with choices, of neighbouring domains."""
    far_domain: list[str] = field(default_factory=list)
    """Files of questions with choices, of other domains."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, choices, answer) to those of all question files."""
    n: int | None = None
    """Questions per file of near and far, at equal distances; null = all."""
    glossary_n: int | None = None
    """Terms per glossary, at equal distances; null = all."""
    generated_n: int = 0
    """Questions per glossary and file with open questions, at equal distances, that are also answered greedily and compared with the
    correct answer by shared words (the verifier `words`); 0 = none."""
    text: list[str] = field(default_factory=list)
    """Text files, or rows with a column `text`."""
    text_tokens: int = 16384
    """Most tokens of each text."""
    window_tokens: int = 256
    """Length of a text's windows in tokens; each is read without the ones before it."""

    def __post_init__(self) -> None:
        for name in ("n", "glossary_n"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        at_least("generated_n", self.generated_n, 0)
        at_least("text_tokens", self.text_tokens, 2)
        at_least("window_tokens", self.window_tokens, 3)


@dataclass(frozen=True)
class MeasuredDomain(DomainSuite):
    """Domain suite: questions of a domain, of neighbouring and other domains, and general text.

    An adaptation runs it with its own device settings.
    """

    machine: Machine = field(default_factory=Machine)
