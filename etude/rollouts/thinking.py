"""Settings of thoughts; free of torch, so that they are read and checked without it."""

from dataclasses import dataclass, field

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class Thinking:
    """Texts that budget forcing inserts (s1, arXiv 2501.19393)."""

    continuation: str = "Wait"
    """Text inserted, on its own line, where a thought would end before its budget; may be a line break ("\\n" in YAML)."""
    cue: str = "The answer is"
    """Text inserted after the thought, on its own line; a model that writes it by itself has ended its thought."""
    answer_tokens: int = 16
    """Longest answer after the cue, in tokens."""

    def __post_init__(self) -> None:
        at_least("thought.answer_tokens", self.answer_tokens, 1)
        if not self.continuation:
            raise UserError('thought.continuation is empty, so that a thought would not go on: give a word, or a line break ("\\n")')
        if not self.cue.strip():
            raise UserError("thought.cue is empty: give the words that an answer begins with, such as 'The answer is'")

    def most_tokens(self, budget_tokens: int) -> int:
        """Return an upper bound of the tokens of thought, cue and answer: the cue has at most one a byte, and a line break."""
        return budget_tokens + len(self.cue.encode()) + 1 + self.answer_tokens


@dataclass(frozen=True)
class Thought(Thinking):
    """Budget forcing: a thought of fixed length before the answer (s1, arXiv 2501.19393)."""

    budget_tokens: int | None = None
    """Length of the thought in tokens, instead of max_new_tokens; 0 = answer at once; null = the model ends by itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget_tokens is not None:
            at_least("thought.budget_tokens", self.budget_tokens, 0)

    @property
    def is_on(self) -> bool:
        return self.budget_tokens is not None

    @property
    def unread(self) -> set[str]:
        """Return the settings without effect."""
        return set() if self.is_on else {"continuation", "cue", "answer_tokens"}


@dataclass(frozen=True)
class Thoughts(Thinking):
    """Budget forcing: measure also greedy answers after thoughts of fixed lengths (s1, arXiv 2501.19393)."""

    budgets: list[int] = field(default_factory=list)
    """Lengths of the thoughts in tokens; 0 = answer at once; empty = off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for budget in self.budgets:
            at_least("thought.budgets", budget, 0)
        if len(set(self.budgets)) < len(self.budgets):
            raise UserError(f"thought.budgets names a length twice: {self.budgets}; give each once")

    @property
    def longest(self) -> int:
        """An upper bound of the tokens of the longest thought with its answer; 0 without budgets."""
        return max(map(self.most_tokens, self.budgets), default=0)
