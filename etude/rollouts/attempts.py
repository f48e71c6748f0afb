"""Attempts and groups: the output of rollouts, and the input of rewards and the learner."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, groupby

from etude.engine.completion import Completion, Finish
from etude.tasks.task import Task

HINTED, DECODED = "hint", "decoded"
"""Views of attempts that the policy did not sample at the task's own prompt: one saw the answer, one was made from other attempts."""


class Source(IntEnum):
    """Origin of a token; only own tokens have an advantage."""

    GIVEN = 0
    OWN = 1
    FEEDBACK = 2


@dataclass(frozen=True)
class Attempt:
    """One sampled completion of a task."""

    tokens: tuple[int, ...]
    sources: tuple[Source, ...]
    """One per token."""
    logprobs: tuple[float, ...]
    """Behaviour log-probs of the own tokens, in order."""
    text: str
    """The text that the verifier reads: what the model wrote in its last turn."""
    finish: Finish
    key: int
    policy_version: int
    view: str = "full"
    turns: int = 1
    step_lengths: tuple[int, ...] = ()
    """Own tokens of each step; empty if the attempt is not split into steps."""
    step_shares: tuple[float, ...] = ()
    """Share of the policy's answers that the attempt stands for at each step (`Tree.group`); empty: equal shares in the group, as for
    independent attempts.
    """
    before: tuple[str, ...] = ()
    """The conversation before the last turn, in order: a text of the model, the feedback on it, and so on."""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.tokens):
            raise ValueError(f"{len(self.sources)} sources for {len(self.tokens)} tokens")
        if self.sources.count(Source.OWN) != len(self.logprobs):
            raise ValueError(f"{len(self.logprobs)} log-probs for {self.sources.count(Source.OWN)} own tokens")
        if self.step_lengths and sum(self.step_lengths) != len(self.logprobs):
            raise ValueError(f"steps of {sum(self.step_lengths)} tokens for {len(self.logprobs)} own tokens")

    @staticmethod
    def of(prompt: Sequence[int], completion: Completion) -> "Attempt":
        """Return an attempt of a single turn: the prompt's tokens are given, the completion's are own."""
        return Attempt(
            tokens=(*prompt, *completion.tokens),
            sources=(Source.GIVEN,) * len(prompt) + (Source.OWN,) * len(completion.tokens),
            logprobs=completion.logprobs,
            text=completion.text,
            finish=completion.finish,
            key=completion.key,
            policy_version=completion.policy_version,
            view=completion.view,
        )

    @property
    def is_sample(self) -> bool:
        """Whether the policy sampled it, without help."""
        return self.view not in (HINTED, DECODED)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens before the first own token."""
        return self.tokens[: self.sources.index(Source.OWN)]

    @property
    def turn_spans(self) -> list[tuple[int, int]]:
        """Start and end of each turn among the tokens; a turn is a run of own tokens."""
        runs = [(source, sum(1 for _ in run)) for source, run in groupby(self.sources)]
        ends = accumulate(length for _, length in runs)
        return [(end - length, end) for (source, length), end in zip(runs, ends, strict=True) if source == Source.OWN]

    @property
    def own_tokens(self) -> tuple[int, ...]:
        return tuple(token for token, source in zip(self.tokens, self.sources, strict=True) if source == Source.OWN)

    @property
    def num_own_tokens(self) -> int:
        return len(self.logprobs)


@dataclass(frozen=True)
class Group:
    """The attempts at one task, which are compared with each other."""

    task: Task
    attempts: tuple[Attempt, ...]
