"""Advantages of turns, from the scores of the turns of revised attempts.

With scores s_1 ... s_T of an attempt's turns, and s_0 = 0:

reward of turn t      r_t = s_t - s_(t-1), the improvement
return of turn t      R_t = Σ_(u >= t) discount^(u-t) r_u
advantage of turn t   the rule of `etude.learn.advantages` over the returns of the group's attempts that have a turn t

Discount 1: R_t = s_T - s_(t-1); the first turn is rewarded for the final score, each later one for the gain from it on. Given the earlier
turns, s_(t-1) is a constant, so that this is in expectation the gradient of s_T.
Discount 0: R_t = r_t; each turn has its own improvement, so that a first turn gains nothing by later corrections.

The idea is SCoRe's (arXiv 2409.12917, stage II: reward shaping), which adds a multiple of s_2 - s_1 to the second turn's reward s_2, so
that second answers do not just repeat the first. Departures: the improvement is all of a later turn's reward, so that rewards add up to
s_T; a turn is compared with the same turn of the group's other attempts; there is no first stage that limits the first turn's divergence
from the base model (the callback `kl_penalty` limits all turns).

In sum, R_t = -s_(t-1) + (1 - discount) Σ_(t <= u < T) discount^(u-t) s_u + discount^(T-t) s_T. A turn has no return if a score with a
nonzero factor is missing: it has advantage 0 and is not compared.

Identity: attempts of one turn have the return s_1, and so the advantage of `etude.learn.advantages`.
"""

from collections.abc import Iterable, Sequence

from etude.learn.advantages import AdvantageRule, Scores, has_signal


def returns(scores: Scores, discount: float) -> list[float | None]:
    """Return R_t of every turn, from the scores of all.

    >>> returns([0.0, 0.25, 1.0], 1.0), returns([0.0, 0.25, 1.0], 0.0)
    ([1.0, 1.0, 0.75], [0.0, 0.25, 0.75])
    """
    return [_return(scores, turn, discount) for turn in range(len(scores))]


def turn_advantages(groups: Sequence[Sequence[Scores]], rule: AdvantageRule, discount: float) -> list[list[list[float]]]:
    """Return the advantage of every turn of every attempt, by group, from the scores of their turns."""
    earned = [[returns(scores, discount) for scores in group] for group in groups]
    advantages: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    for turn in range(max(len(own) for group in earned for own in group)):
        for own, group, row in zip(advantages, earned, rule([_of_turn(group, turn) for group in earned]), strict=True):
            having = [attempt for attempt, of_turns in zip(own, group, strict=True) if len(of_turns) > turn]
            for attempt, value in zip(having, row, strict=True):
                attempt.append(value)
    return advantages


def turns_with_signal(group: Iterable[Scores], discount: float) -> list[bool]:
    """Return for each turn whether the group's returns differ, so that attempts can be compared."""
    earned = [returns(scores, discount) for scores in group]
    return [has_signal(_of_turn(earned, turn)) for turn in range(max(map(len, earned)))]


def _of_turn(earned: Sequence[Sequence[float | None]], turn: int) -> list[float | None]:
    """Return the returns of a group's attempts that have this turn."""
    return [own[turn] for own in earned if len(own) > turn]


def _return(scores: Scores, turn: int, discount: float) -> float | None:
    last = len(scores) - 1
    factors = {place: (1 - discount) * discount ** (place - turn) for place in range(turn, last)}
    factors |= {last: discount ** (last - turn)} | ({turn - 1: -1.0} if turn else {})
    total = 0.0
    for place, factor in factors.items():
        score = scores[place]
        if factor and score is None:
            return None
        total += factor * (score or 0.0)
    return total
