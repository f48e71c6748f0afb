"""What an attempt's length does to the credit it earns: long ones cost something, those that were cut off teach nothing.

With L the own tokens of an attempt, its end token among them, L_max the most that it may have and L_cache a buffer before that:

penalty  0                              L <= L_max - L_cache
         (L - (L_max - L_cache)) / L_cache      above, up to L_max
         1                              L > L_max

Soft over-length punishment, DAPO, arXiv 2503.14476, eq. 13: credit goes by score - weight · penalty. Its scores are -1 and 1, here they
are 0 and 1, so that at weight 1 a right answer of full length is worth a short wrong one, where DAPO's is worth the middle of the two:
weight 0.5 is the paper's proportion. Verdicts that are measured, kept and shown stay what feedback said: `Verdict.score` is the same,
only what credit is computed from changes. A group whose scores are all equal may so come to have signal: its shorter answers are better.

`mask_truncated`, overlong filtering (DAPO, section 3.4): an attempt that was cut off enters no loss, the anchor's among them, since it may
have been right in the end. It counts in its group's statistics, and in the batch by which a loss is averaged, as in TRL, whose
`mask_truncated_completions` masks the loss of completions alone. So nobody's mean is lifted by what was not finished, and a group of which
nothing is left changes nothing.

Identity: buffer 0 (or weight 0) without the mask leaves every verdict and every lesson as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from etude.errors import UserError, at_least
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group


@dataclass(frozen=True)
class LengthControl:
    """What attempts' lengths change in what is learned from them."""

    buffer_tokens: int = 0
    """Last tokens of explore.max_new_tokens in which a score is lowered, the more the nearer the end (DAPO); 0 is off."""
    penalty: float = 1.0
    """How much a score is lowered by an answer of full length, in units of the reward: 1 is all that a verifier of 0 and 1 gives."""
    mask_truncated: bool = False
    """Whether attempts that were cut off at explore.max_new_tokens enter no loss; they count in their group all the same (DAPO, TRL)."""

    def __post_init__(self) -> None:
        at_least("learn.length.buffer_tokens", self.buffer_tokens, 0)
        if not 0 <= self.penalty < float("inf"):
            raise UserError(f"learn.length.penalty must be 0 (none) or more, got {self.penalty}")

    @property
    def is_on(self) -> bool:
        return self.buffer_tokens > 0 or self.mask_truncated

    def masks(self, attempt: Attempt) -> bool:
        """Whether nothing is learned from it."""
        return self.mask_truncated and attempt.finish == "length"


NO_CONTROL = LengthControl()
"""All lengths alike."""


def over_length(num_tokens: int, most_tokens: int, buffer_tokens: int) -> float:
    """The penalty of an answer, in [0, 1].

    >>> [over_length(length, 16, 4) for length in (12, 13, 16)], over_length(16, 16, 0)
    ([0.0, 0.25, 1.0], 0.0)
    """
    free = most_tokens - buffer_tokens
    return min(1.0, max(0.0, (num_tokens - free) / buffer_tokens)) if buffer_tokens else 0.0


def controlled(
    groups: Sequence[Group], verdicts: Sequence[Sequence[Verdict]], how: LengthControl, most_tokens: int
) -> tuple[list[list[Verdict]], dict[str, float]]:
    """The verdicts that credit goes by, and what lengths did: the `penalised` share of attempts, their mean `length_penalty` over all of
    them, and the `masked` share. Their mean length and the share that was cut off are told of every step anyway.

    The scores of an attempt's turns (`Verdict.turn_scores`), by which credit is computed, are lowered; its `score` is not.
    """
    if not how.is_on:
        return [list(row) for row in verdicts], {}
    penalties = [[how.penalty * over_length(each.num_own_tokens, most_tokens, how.buffer_tokens) for each in g.attempts] for g in groups]
    flat = [penalty for row in penalties for penalty in row]
    metrics = {"penalised": sum(penalty > 0 for penalty in flat) / len(flat), "length_penalty": sum(flat) / len(flat)}
    metrics |= {"masked": sum(how.masks(attempt) for group in groups for attempt in group.attempts) / len(flat)}
    lowered = [[_lowered(*each) for each in zip(row, own, strict=True)] for row, own in zip(verdicts, penalties, strict=True)]
    return lowered, metrics


def _lowered(verdict: Verdict, penalty: float) -> Verdict:
    """The verdict on an attempt of one turn, whose score counts for less; without a score there is nothing to lower."""
    return replace(verdict, turn_scores=(verdict.score - penalty,)) if penalty and verdict.score is not None else verdict
