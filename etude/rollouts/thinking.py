"""How long a model thinks, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, field

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class Thinking:
    """What is put into a thought and behind it."""

    continuation: str = "Wait"
    """Put where a thought would end before its budget, on a line of its own; a line break, written "\\n" in YAML, does too."""
    cue: str = "The answer is"
    """Put behind the thought, on a line of its own; a model that writes it by itself has ended its thought."""
    answer_tokens: int = 16
    """Tokens that the answer behind the cue may have."""

    def __post_init__(self) -> None:
        at_least("thought.answer_tokens", self.answer_tokens, 1)
        if not self.continuation:
            raise UserError('thought.continuation is empty, so that a thought would not go on: give a word, or a line break ("\\n")')
        if not self.cue.strip():
            raise UserError("thought.cue is empty: give the words that an answer begins with, such as 'The answer is'")

    def most_tokens(self, budget_tokens: int) -> int:
        """More than a thought of this budget, the cue and an answer take: the cue has no more tokens than bytes, and a line break."""
        return budget_tokens + len(self.cue.encode()) + 1 + self.answer_tokens


@dataclass(frozen=True)
class Thought(Thinking):
    """A thought of a fixed length before the answer."""

    budget_tokens: int | None = None
    """Its length, 0 for an answer at once; none unless given: the model ends by itself. It stands for max_new_tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget_tokens is not None:
            at_least("thought.budget_tokens", self.budget_tokens, 0)


@dataclass(frozen=True)
class Thoughts(Thinking):
    """Beside free answers, greedy ones behind thoughts of fixed lengths."""

    budgets: list[int] = field(default_factory=list)
    """Their lengths in tokens, 0 for an answer at once; none unless given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for budget in self.budgets:
            at_least("thought.budgets", budget, 0)
        if len(set(self.budgets)) < len(self.budgets):
            raise UserError(f"thought.budgets names a length twice: {self.budgets}; give each once")

    @property
    def longest(self) -> int:
        """The tokens that the longest needs at most; 0 where there is none."""
        return max(map(self.most_tokens, self.budgets), default=0)
