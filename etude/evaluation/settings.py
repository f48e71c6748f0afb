"""Settings of evaluation: suites, and the retention probe."""

from dataclasses import dataclass, field
from typing import Any

from etude.errors import at_least
from etude.rollouts.thinking import Thoughts


@dataclass(frozen=True)
class Evaluation:
    """Evaluation: the suites that a model is measured on."""

    path: list[str] = field(default_factory=list)
    """Task files; each is a suite, named by its stem."""
    own: bool = True
    """Also measure on the evaluation split of the training source (a family, function or data set, or files with split_by)."""
    split: str = "test"
    """Name of that split."""
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Further suites of the training family, by name, each with these parameters besides its own: {long_lists: {max_numbers: 8}}."""
    n: int | None = None
    """Tasks per suite; null = all of a file or data set, 1,000 of a family or function."""
    pass_n: int = 200
    """Tasks of each suite that are sampled for pass@k, chosen by a hash of the task; 0 = none."""
    num_samples: int = 8
    """Samples per task for pass@k: the k."""
    max_new_tokens: int | None = None
    """Longest answer in tokens; null = rollout.max_new_tokens."""
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
    """Retention probe: general knowledge, measured with the suites by the likelihood of a text and of multiple-choice answers.

    Default: the shipped page of common knowledge and 80 questions.
    """

    probe: bool = True
    """Whether the probe is measured."""
    text: list[str] = field(default_factory=list)
    """Text files."""
    choices: list[str] = field(default_factory=list)
    """Files of multiple-choice questions."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, choices, answer) to those of the files."""
    n: int | None = None
    """Questions per file; null = all."""
    text_tokens: int = 8192
    """Most tokens of the text."""
    window_tokens: int = 64
    """Length of a text's windows in tokens; each is read without the ones before it."""

    @property
    def is_own(self) -> bool:
        """Whether the user's own files are measured."""
        return bool(self.text or self.choices)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("retention.n", self.n, 1)
        at_least("retention.text_tokens", self.text_tokens, 2)
        at_least("retention.window_tokens", self.window_tokens, 3)
