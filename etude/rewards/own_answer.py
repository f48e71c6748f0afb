"""Pseudo-label reward: score attempts by the answer that the model decodes from several of its own attempts, without a gold answer.

For each task there are attempts and an answer that was decoded from them (`etude.decoding`). With m the vote of that answer
(`etude.tasks.votes`) and s its confidence:

    the decoded answer             1
    attempts that vote for m       no score: they say the same in other words
    attempts that do not           0
    all of them                    no score if s < `min_share`, or if the answer is cut off, empty or missing

With `answers`, s is the share of the attempts that vote for m. With `tokens`, for joint answers only, s is the mean over the answer's
tokens of the share of its inputs that ranked this token first; this is for answers too long to be equal.

Distilling an ensemble's answers into the plain prompt is self-training (Scudder 1965); with agreeing answers, Huang et al. 2023 (LMSI,
arXiv 2210.11610). Training on a joint answer, and abstention, are ours.

A group without a score of 0 has no contrast, and is trained on only with `learn.include_solved_groups`. Identity: with one sample the
answer is the attempt itself, and imitation of it is plain self-training.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.votes import Tally, vote

COUNTED = ("own_answers", "own_answers_abstained")
"""Tasks with a decoded answer, and those among them that were left out."""


@dataclass(frozen=True)
class OwnAnswer:
    """The parts of a decoded answer that the reward reads."""

    text: str | None
    """The answer; None if there is none."""
    is_whole: bool
    """Whether it ended by itself."""
    agreement: Sequence[float] = ()
    """For each of its tokens, the share of the inputs that ranked it first."""


def rewards_by(
    answer: OwnAnswer, texts: Sequence[str], task: Task, *, min_share: float, by_tokens: bool, counts: Counter[str]
) -> list[Reward]:
    """Return a reward for each attempt's text, then for the decoded answer itself, if there is one.

    `vote_share` among its parts is the answer's confidence.

    >>> answer, attempts = OwnAnswer("It is 7.", True), ["7", "8", "7", "what?"]
    >>> how = {"min_share": 0.5, "by_tokens": False, "counts": Counter()}
    >>> [reward.score for reward in rewards_by(answer, attempts, Task("3 + 4?", verifier="numeric"), **how)]
    [None, 0.0, None, 0.0, 1.0]
    """
    counts["own_answers"] += 1
    votes = [vote(text, task) for text in texts]
    answer_vote = vote(answer.text, task) if answer.text is not None else None
    tokens = sum(answer.agreement) / len(answer.agreement) if answer.agreement else 0.0
    share = tokens if by_tokens else Tally.of(votes).share(answer_vote)
    parts = {"vote_share": share}
    reasons = {
        "no answer that can be read": answer_vote is None,
        "it is cut off": not answer.is_whole,
        f"{share:.2f} agree, {min_share:.2f} are asked for": share < min_share,
    }
    reason = next((words for words, is_so in reasons.items() if is_so), "")
    if reason:
        counts["own_answers_abstained"] += 1
        found = [Reward(None, parts, message=f"the model's own answer teaches nothing: {reason}") for _ in texts]
        return found + ([found[0]] if answer.text is not None else [])
    said = (answer.text or "").strip()[:60]
    others = [Reward(None if each == answer_vote else 0.0, parts, message=f"the model's own answer is {said!r}") for each in votes]
    return [*others, Reward(1.0, parts)]
