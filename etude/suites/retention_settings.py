"""Settings of the retention suite (`etude.suites.retention`)."""

from dataclasses import dataclass, field
from typing import Any

from etude.device.machine_settings import Machine
from etude.errors import at_least
from etude.evaluation.instructions import instructions
from etude.rewards.verifier_reward import Isolation


@dataclass(frozen=True)
class RetentionSuite:
    """Settings of the retention suite."""

    choices: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, choices, answer) to those of the files."""
    n: int | None = None
    """Questions per file, always the same ones; null = all."""
    text: list[str] = field(default_factory=list)
    """Text files, or JSONL with a column `text`; each has a perplexity of its own."""
    text_tokens: int = 8192
    """Most tokens of each text."""
    window_tokens: int = 256
    """Length of a text's windows in tokens; each is read without the ones before it."""
    instructions: int = 110
    """Prompts with a rule that can be checked; 0 = none."""
    families: list[str] = field(default_factory=list)
    """Families of reasoning-gym; name none that the model practised on."""
    family_parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of a family, by its name; by default the family's own."""
    family_verifier: str | None = None
    """Verifier of their answers, such as `numeric`, which finds a number in prose; null = their own scorers, which accept only the number.
    """
    family_n: int = 40
    """Problems per family."""
    max_new_tokens: int = 96
    """Longest answer to an instruction or a problem, in tokens."""
    system: str | None = None
    """System message before instructions and problems; null = what the chat template does, "" = an empty one."""
    against: str | None = None
    """The start of practice, a model: what is left of what it knew and did is measured too; null = the model is measured alone."""
    known_margin: float = 0.2
    """The start knows a question if its right choice is so many nats a token likelier than the best wrong one; of about a third it is."""
    floor: bool = True
    """Whether the start answers again in the other precision: how many of its right answers rounding alone changes."""
    closed_book: int = 120
    """Shipped questions to be answered in a few words, of `against` and of the model; 0 = none."""
    closed_book_tokens: int = 32
    """Longest answer to one of these, in tokens."""
    chat_prompts: int = 40
    """Shipped everyday prompts on whose answers by the start the divergence is measured; 0 = none."""
    chat_tokens: int = 64
    """Longest answer to one of these, in tokens."""
    divergence_tokens: int = 1024
    """Most tokens of each text on which the divergence is measured; 0 = none."""
    timeout_seconds: float = 5.0
    """Time limit of a verifier for one answer, in seconds."""
    isolate_verifiers: Isolation = True
    """Sandbox verifiers: true = as far as the kernel can; `required` = refuse to run if anything stays open; false = off."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("n", self.n, 1)
        for name, least in _LEAST.items():
            at_least(name, getattr(self, name), least)
        instructions(self.instructions)


_LEAST = {
    "text_tokens": 2,
    "window_tokens": 3,
    "instructions": 0,
    "family_n": 1,
    "max_new_tokens": 1,
    "known_margin": 0,
    "closed_book": 0,
    "closed_book_tokens": 1,
    "chat_prompts": 0,
    "chat_tokens": 1,
    "divergence_tokens": 0,
}
READ_AGAINST_A_START = ("known_margin", "floor", "closed_book", "chat_prompts", "chat_tokens", "divergence_tokens")
"""Beginnings of settings that are read only if there is a model in `against`."""
