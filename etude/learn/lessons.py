"""What the learner makes of judged attempts: examples, by credit or by imitation, a list for each group.

by_credit    every attempt of a group with signal enters the policy stream, each own token with the attempt's credit, or with its step's
by_imitation right attempts enter the imitate stream (rejection sampling: RAFT, arXiv 2304.06767; ReST-EM, arXiv 2312.06585;
             STaR, arXiv 2203.14465, where some saw the answer and are imitated as if they had not), every group with the same total
             weight, so that easy tasks do not drown hard ones; groups in which all or none are right are left out as in `by_credit`, so
             that both learn from the same tasks, unless all that are right are to be kept. Departures: STaR decodes one answer greedily,
             before and behind the hint, here a group is sampled; ReST-EM takes at most so many answers of a task, here their weights are
             shared out; both go through all tasks between two models

Each turn of a revised attempt is an example, whose prompt is all that stands before it. `by_credit` gives it its own credit
(`etude.learn.turn_credit`) and leaves out turns in which a group has no signal; `by_imitation` takes the right turns of attempts that ended
right, each with an attempt's weight, and nothing of a turn that was wrong.
"""

from collections.abc import Callable, Sequence

from etude.learn.credit import credit_rule
from etude.learn.example import Example, Weights
from etude.learn.length import NO_CONTROL, LengthControl
from etude.learn.step_credit import STEP_CREDIT
from etude.learn.turn_credit import turn_credit, turns_with_signal
from etude.rewards.verdict import Verdict, scores_of, turns_right
from etude.rollouts.attempts import Attempt, Group, Source

Verdicts = Sequence[Sequence[Verdict]]
Lessons = list[list[Example]]


def by_credit(
    groups: Sequence[Group],
    verdicts: Verdicts,
    *,
    credit: str,
    with_anchor: bool = False,
    turn_discount: float = 1.0,
    keep_all_right: bool = False,
    added: Sequence[Sequence[Weights]] | None = None,
    pass_k: int = 1,
    length: LengthControl = NO_CONTROL,
) -> Lessons:
    """Policy examples of the groups with signal; `with_anchor` puts the tokens of all groups into the anchor stream. `added` is more credit
    of every own token, by group and attempt. Attempts that `length` masks are left out, though others were compared with them.
    """
    lessons = []
    earned = token_weights(groups, verdicts, credit, turn_discount, added, pass_k)
    for group, row, weights in zip(groups, verdicts, earned, strict=True):
        has_signal = turns_with_signal(map(scores_of, row), turn_discount)
        if not any(any(own) for own in weights):  # scores differ, and no set of attempts is better than another (`pass_at_k`)
            has_signal = [False] * len(has_signal)
        lessons.append(
            [
                _example(attempt, turn, policy=own if has_signal[turn] else None, anchor=(1.0,) * len(own) if with_anchor else None)
                for attempt, own in zip(group.attempts, weights, strict=True)
                for turn in range(attempt.turns)
                if (has_signal[turn] or with_anchor) and not length.masks(attempt)
            ]
        )
    return lessons


def token_weights(
    groups: Sequence[Group],
    verdicts: Verdicts,
    credit: str,
    turn_discount: float = 1.0,
    added: Sequence[Sequence[Weights]] | None = None,
    pass_k: int = 1,
) -> list[list[Weights]]:
    """The credit of every own token of every attempt, by group, with what is `added` to it; `pass_k` is of the rule `pass_at_k`."""
    if added is not None:
        earned = token_weights(groups, verdicts, credit, turn_discount, pass_k=pass_k)
        return [[_sum(*both) for both in zip(row, more, strict=True)] for row, more in zip(earned, added, strict=True)]
    if credit in STEP_CREDIT:
        return STEP_CREDIT[credit](groups, verdicts)
    by_turn = turn_credit([[scores_of(verdict) for verdict in row] for row in verdicts], credit_rule(credit, pass_k), turn_discount)
    return [
        [_of_tokens(attempt, turns) for attempt, turns in zip(group.attempts, row, strict=True)]
        for group, row in zip(groups, by_turn, strict=True)
    ]


def by_imitation(
    groups: Sequence[Group],
    verdicts: Verdicts,
    *,
    credit: str = "",
    with_anchor: bool = False,
    turn_discount: float = 1.0,
    keep_all_right: bool = False,
    added: Sequence[Sequence[Weights]] | None = None,
    pass_k: int = 1,
    length: LengthControl = NO_CONTROL,
) -> Lessons:
    """Imitate examples: the right attempts of the groups with signal, or of all groups (`keep_all_right`); their weights add up to the
    number of the group's attempts, without those that saw the answer or were made of others.

    Credit, anchor and length have no part in it.
    """
    lessons: Lessons = []
    for group, row in zip(groups, verdicts, strict=True):
        right = [(attempt, turns_right(verdict)) for attempt, verdict in zip(group.attempts, row, strict=True) if verdict.is_right]
        number = sum(attempt.is_sample for attempt in group.attempts)
        if not keep_all_right and not any(turns_with_signal(map(scores_of, row), turn_discount)):
            right = []
        lessons.append(
            [
                _example(attempt, turn, imitate=(number / len(right),) * attempt.num_own_tokens)
                for attempt, turns in right
                for turn, is_right in enumerate(turns)
                if is_right
            ]
        )
    return lessons


def _sum(one: Weights, other: Weights) -> Weights:
    return tuple(mine + its for mine, its in zip(one, other, strict=True))


def _of_tokens(attempt: Attempt, turns: Sequence[float]) -> Weights:
    """The credit of turns for each of their tokens."""
    return tuple(credit for credit, (start, end) in zip(turns, attempt.turn_spans, strict=True) for _ in range(start, end))


def _example(attempt: Attempt, turn: int, **streams: Weights | None) -> Example:
    """One turn of an attempt; `streams` have a weight for every own token of the whole attempt."""
    start, end = attempt.turn_spans[turn]
    before = attempt.sources[:start].count(Source.OWN)
    own = slice(before, before + end - start)
    weights = {name: values and values[own] for name, values in streams.items()}
    return Example(attempt.tokens[:start], attempt.tokens[start:end], behaviour_logprobs=attempt.logprobs[own], **weights)


LESSONS: dict[str, Callable[..., Lessons]] = {"credit": by_credit, "imitation": by_imitation}
