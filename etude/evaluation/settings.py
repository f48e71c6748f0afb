"""What a model is measured on: suites, and what it knew before."""

from dataclasses import dataclass, field

from etude.errors import at_least
from etude.rollouts.thinking import Thoughts


@dataclass(frozen=True)
class Evaluation:
    """What a model is measured on."""

    path: list[str] = field(default_factory=list)
    """Files, one suite each, named by the stem."""
    own: bool = True
    """Whether a source that has splits (a family, function or data set, files with split_by) is measured on its evaluation split, too."""
    split: str = "test"
    """Name of that split."""
    n: int | None = None
    """Tasks of each suite; all tasks of a file or data set unless given, 1,000 of a family or function."""
    pass_n: int = 200
    """Tasks that are sampled for pass@k."""
    num_samples: int = 8
    """Samples for each of these: the k."""
    max_new_tokens: int | None = None
    """Longest answer; explore.max_new_tokens unless given."""
    thought: Thoughts = field(default_factory=Thoughts)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("evaluation.n", self.n, 1)
        if self.max_new_tokens is not None:
            at_least("evaluation.max_new_tokens", self.max_new_tokens, 1)
        at_least("evaluation.pass_n", self.pass_n, 0)
        at_least("evaluation.num_samples", self.num_samples, 0)


@dataclass(frozen=True)
class Retention:
    """What the model knew before, measured beside the suites by likelihood (a text and multiple-choice questions).

    Without files of yours they are those that ship: a page of common knowledge and 80 questions.
    """

    probe: bool = True
    text: list[str] = field(default_factory=list)
    """Text files."""
    choices: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, choices, answer) to the files' columns."""
    n: int | None = None
    """Questions of each file; all unless given."""
    text_tokens: int = 8192
    """Tokens of the text at most."""
    window_tokens: int = 64
    """Length of the pieces that the text is read in, each without the ones before."""

    @property
    def is_own(self) -> bool:
        """Whether files of the user's are measured."""
        return bool(self.text or self.choices)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("retention.n", self.n, 1)
        at_least("retention.text_tokens", self.text_tokens, 2)
        at_least("retention.window_tokens", self.window_tokens, 3)
