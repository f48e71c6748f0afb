"""Settings of the domain suite; without torch, so that they are read and checked without it."""

from dataclasses import dataclass, field

from etude.device.machine_settings import Machine
from etude.errors import at_least


@dataclass(frozen=True)
class DomainSuite:
    """Questions of a domain, of neighbouring and other domains, and general text."""

    questions: list[str] = field(default_factory=list)
    """Files of the domain's questions."""
    choices_where: dict[str, str] = field(default_factory=dict)
    """Column values that select the rows with choices, such as {type: mcq}; all rows unless given."""
    open_where: dict[str, str] = field(default_factory=dict)
    """Column values that select the open questions, such as {type: open}; none unless given."""
    split_by: str | None = None
    """The column that the domain's files are split by, such as section (`tasks.split_by`)."""
    split: str = "test"
    """The split that is measured, of `split_by` and of `{split}` in a path."""
    glossary: list[str] = field(default_factory=list)
    """Files with the columns term, definition and optionally section; split by `split_by` if they have that column."""
    near_domain: list[str] = field(default_factory=list)
    far_domain: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our column names (question, choices, answer) to those of all question files."""
    n: int | None = None
    """Questions of each file of near and far, at equal distances; all unless given."""
    glossary_n: int | None = None
    """Terms of each glossary, at equal distances; all unless given."""
    generated_n: int = 0
    """Questions of each glossary and file with open questions, at equal distances, that are also answered greedily; the answer is compared
    with the correct one by shared words (the verifier `words`); 0: none.
    """
    text: list[str] = field(default_factory=list)
    """Text files, or rows with a column `text`."""
    text_tokens: int = 16384
    """Tokens of each text at most."""
    window_tokens: int = 256
    """Length of the windows of a text, each read without those before it."""

    def __post_init__(self) -> None:
        for name in ("n", "glossary_n"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        at_least("generated_n", self.generated_n, 0)
        at_least("text_tokens", self.text_tokens, 2)
        at_least("window_tokens", self.window_tokens, 3)


@dataclass(frozen=True)
class MeasuredDomain(DomainSuite):
    """The suite as `etude evaluate` runs it; an adaptation uses its own device settings."""

    machine: Machine = field(default_factory=Machine)
