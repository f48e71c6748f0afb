"""What the learner makes of judged attempts: examples, by credit or by imitation.

by_credit    every attempt of a group with signal enters the policy stream, each own token with the attempt's credit
by_imitation attempts with full score enter the imitate stream (rejection sampling: RAFT, arXiv 2304.06767; ReST-EM, arXiv 2312.06585),
             every group with the same total weight, so that easy tasks do not drown hard ones; groups in which all or none are right
             are left out as in `by_credit`, so that both learn from the same tasks
"""

from collections.abc import Callable, Sequence

from etude.explore.attempts import Attempt, Group
from etude.feedback.verdict import Verdict
from etude.learn.credit import CREDIT, has_signal
from etude.learn.example import Example

Verdicts = Sequence[Sequence[Verdict]]


def by_credit(groups: Sequence[Group], verdicts: Verdicts, *, credit: str, with_anchor: bool = False) -> list[Example]:
    """Policy examples of the groups with signal; `with_anchor` puts the tokens of all groups into the anchor stream."""
    scores = [[verdict.score for verdict in row] for row in verdicts]
    examples = []
    for group, row, weights in zip(groups, scores, CREDIT[credit](scores), strict=True):
        signal, anchor = has_signal(row), 1.0 if with_anchor else None
        if signal or with_anchor:
            for attempt, weight in zip(group.attempts, weights, strict=True):
                examples.append(_example(attempt, policy=weight if signal else None, anchor=anchor))
    return examples


def by_imitation(groups: Sequence[Group], verdicts: Verdicts, *, credit: str = "", with_anchor: bool = False) -> list[Example]:
    """Imitate examples: the right attempts of the groups with signal, weights of a group adding up to its number of attempts.

    Credit and anchor have no part in it.
    """
    examples = []
    for group, row in zip(groups, verdicts, strict=True):
        right = [attempt for attempt, verdict in zip(group.attempts, row, strict=True) if verdict.score == 1.0]
        if right and has_signal([verdict.score for verdict in row]):
            weight = len(group.attempts) / len(right)
            examples += [_example(attempt, imitate=weight) for attempt in right]
    return examples


def _example(attempt: Attempt, **weights: float | None) -> Example:
    n = attempt.num_own_tokens
    streams = {name: None if weight is None else (weight,) * n for name, weight in weights.items()}
    prompt = attempt.prompt
    return Example(prompt, attempt.tokens[len(prompt) :], behaviour_logprobs=attempt.logprobs, **streams)


LESSONS: dict[str, Callable[..., list[Example]]] = {"credit": by_credit, "imitation": by_imitation}
