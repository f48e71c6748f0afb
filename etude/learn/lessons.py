"""What the learner makes of judged attempts: examples, by credit or by imitation.

by_credit    every attempt of a group with signal enters the policy stream, each own token with the attempt's credit, or with its step's
by_imitation attempts with full score enter the imitate stream (rejection sampling: RAFT, arXiv 2304.06767; ReST-EM, arXiv 2312.06585;
             STaR, arXiv 2203.14465, where some saw the answer and are imitated as if they had not), every group with the same total
             weight, so that easy tasks do not drown hard ones; groups in which all or none are right are left out as in `by_credit`, so
             that both learn from the same tasks, unless all that are right are to be kept
"""

from collections.abc import Callable, Sequence

from etude.explore.attempts import Attempt, Group
from etude.feedback.verdict import Verdict
from etude.learn.credit import CREDIT, has_signal
from etude.learn.example import Example, Weights
from etude.learn.step_credit import STEP_CREDIT

Verdicts = Sequence[Sequence[Verdict]]


def by_credit(
    groups: Sequence[Group], verdicts: Verdicts, *, credit: str, with_anchor: bool = False, keep_all_right: bool = False
) -> list[Example]:
    """Policy examples of the groups with signal; `with_anchor` puts the tokens of all groups into the anchor stream."""
    examples = []
    for group, row, weights in zip(groups, verdicts, token_weights(groups, verdicts, credit), strict=True):
        signal = has_signal([verdict.score for verdict in row])
        if signal or with_anchor:
            for attempt, own in zip(group.attempts, weights, strict=True):
                anchor = (1.0,) * len(own) if with_anchor else None
                examples.append(_example(attempt, policy=own if signal else None, anchor=anchor))
    return examples


def token_weights(groups: Sequence[Group], verdicts: Verdicts, credit: str) -> list[list[Weights]]:
    """The credit of every own token of every attempt, by group."""
    if credit in STEP_CREDIT:
        return [STEP_CREDIT[credit](group, row) for group, row in zip(groups, verdicts, strict=True)]
    by_attempt = CREDIT[credit]([[verdict.score for verdict in row] for row in verdicts])
    return [
        [(weight,) * attempt.num_own_tokens for attempt, weight in zip(group.attempts, row, strict=True)]
        for group, row in zip(groups, by_attempt, strict=True)
    ]


def by_imitation(
    groups: Sequence[Group], verdicts: Verdicts, *, credit: str = "", with_anchor: bool = False, keep_all_right: bool = False
) -> list[Example]:
    """Imitate examples: the right attempts of the groups with signal, weights of a group adding up to its number of attempts.

    `keep_all_right`: of all groups.

    Credit and anchor have no part in it.
    """
    examples = []
    for group, row in zip(groups, verdicts, strict=True):
        right = [attempt for attempt, verdict in zip(group.attempts, row, strict=True) if verdict.score == 1.0]
        if right and (keep_all_right or has_signal([verdict.score for verdict in row])):
            weight = len(group.attempts) / len(right)
            examples += [_example(attempt, imitate=(weight,) * attempt.num_own_tokens) for attempt in right]
    return examples


def _example(attempt: Attempt, **streams: Weights | None) -> Example:
    prompt = attempt.prompt
    return Example(prompt, attempt.tokens[len(prompt) :], behaviour_logprobs=attempt.logprobs, **streams)


LESSONS: dict[str, Callable[..., list[Example]]] = {"credit": by_credit, "imitation": by_imitation}
