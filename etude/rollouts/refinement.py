"""Refinement: an attempt, feedback in words, a revised attempt, for a number of turns.

The first turn is plain sampling, token for token. The tokens after a turn are given (`Source.FEEDBACK`): an end token if the answer has
none, the feedback, and the opening of the next answer (`etude.rollouts.prompts.render_feedback`). Then the revised answer is sampled, with
own tokens as before. An attempt is revised until it is right, until its turns are used up, or until the context has no room for another
answer of full length. Fixed words do not depend on correctness: only the latter two end it. Earlier turns stay as sampled, id for id.

Self-Refine (arXiv 2303.17651) has the model write the feedback too; here it is a verifier's, or fixed as in SCoRe (arXiv 2409.12917). The
prefixes of a turn are recomputed, each distinct one once.

Identity: one turn, independent samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

from etude.engine.completion import Completion
from etude.engine.settings import Sampling
from etude.errors import UserError, at_least
from etude.randomness import seed_for
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.continuing import continued
from etude.rollouts.prompts import behind_answer, render_feedback
from etude.rollouts.steps import Steps
from etude.tasks.feedback import words_of
from etude.tasks.reward import Reward, scores_of
from etude.tasks.task import Task

if TYPE_CHECKING:
    from etude.engine.protocols import Engine

CHECK = "Check your answer. If it is wrong, correct it; give the final answer again."

Judge = Callable[[Sequence[tuple[str, Task]]], Sequence[Reward]]
Place = tuple[int, int]
"""(group, attempt in it)."""


@dataclass(frozen=True)
class Refinement:
    """Settings of refinement: turns and feedback."""

    turns: int = 2
    """Most answers in an attempt: the first and its revisions."""
    feedback: Literal["verifier", "fixed"] = "verifier"
    """`verifier` = what the verifier says of an answer that is not right; `fixed` = fixed words after every answer, as without a verifier.
    """
    verifier_words: str = "{words} Correct it; give the final answer again."
    """`verifier`: the message; {words} is replaced by what the verifier says."""
    fixed_words: str = CHECK
    """`fixed`: the message."""

    def __post_init__(self) -> None:
        at_least("refine.turns", self.turns, 1)
        if "{words}" not in self.verifier_words:
            raise UserError(f"refine.verifier_words {self.verifier_words!r} leaves out what the verifier says: put {{words}} into it")
        if not self.fixed_words.strip():
            raise UserError("refine.fixed_words is empty: write what the model is told, or leave the setting out")

    def goes_on(self, attempt: Attempt, reward: Reward) -> bool:
        """Return whether an attempt has another turn, if there is room."""
        return attempt.turns < self.turns and (self.feedback == "fixed" or not reward.is_right)


def refine(
    engine: "Engine",
    groups: Sequence[Group],
    rewards: Sequence[Sequence[Reward]],
    judge: Judge,
    how: Refinement,
    *,
    max_new_tokens: int,
    room_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    steps: Steps | None = None,
) -> tuple[list[Group], list[list[Reward]]]:
    """Revise first attempts; return the revised groups and their rewards, which have the scores of all turns.

    `max_new_tokens` is for one turn; `room_tokens` is the longest prefix that leaves room for it. Keys of turn t are hashed from the
    attempt's names (`names`, its group's index, the task, its number), "turn" and t. `steps` are those of `Reward.step_values`.
    """
    attempts = {(place, number): attempt for place, group in enumerate(groups) for number, attempt in enumerate(group.attempts)}
    found = {(place, number): reward for place, row in enumerate(rewards) for number, reward in enumerate(row)}
    for turn in range(2, how.turns + 1):
        going = [place for place in attempts if how.goes_on(attempts[place], found[place])]
        words = {place: _told(engine, attempts[place], found[place], how, steps) for place in going}
        rendered = {said: render_feedback(engine.tokenizer, said) for said in dict.fromkeys(words.values())}
        own_end = engine.tokenizer, engine.end_tokens
        given = {place: behind_answer(*own_end, attempts[place].tokens[-1], rendered[said]) for place, said in words.items()}
        prefixes = {place: (*attempts[place].tokens, *more) for place, more in given.items()}
        prefixes = {place: prefix for place, prefix in prefixes.items() if len(prefix) <= room_tokens}
        if not prefixes:
            break
        keys = {(place, number): seed_for(*names, place, groups[place].task.key, number, "turn", turn) for place, number in prefixes}
        for place, completion in continued(engine, prefixes, keys, max_new_tokens, sampling).items():
            attempts[place] = _revised(attempts[place], words[place], given[place], completion)
        judged = judge([(attempts[place].text, groups[place[0]].task) for place in prefixes])
        for place, reward in zip(prefixes, judged, strict=True):
            found[place] = replace(reward, turn_scores=(*scores_of(found[place]), reward.score))
    numbers = [range(len(group.attempts)) for group in groups]
    return (
        [Group(group.task, tuple(attempts[place, i] for i in numbers[place])) for place, group in enumerate(groups)],
        [[found[place, i] for i in numbers[place]] for place in range(len(groups))],
    )


def _told(engine: "Engine", attempt: Attempt, reward: Reward, how: Refinement, steps: Steps | None) -> str:
    """Return the feedback for an attempt."""
    if how.feedback == "fixed":
        return how.fixed_words
    texts: list[str] = []
    if reward.step_values and steps:
        start, end = attempt.turn_spans[-1]
        own = attempt.tokens[start:end]
        ends = list(accumulate(steps.lengths(own, engine.text_of)))
        texts = [engine.text_of(own[begin:behind]) for begin, behind in pairwise([0, *ends])]
    return how.verifier_words.replace("{words}", words_of(reward, texts))


def _revised(attempt: Attempt, words: str, given: tuple[int, ...], completion: Completion) -> Attempt:
    """Return the attempt with another turn, which sets its text and finish."""
    return replace(
        attempt,
        tokens=(*attempt.tokens, *given, *completion.tokens),
        sources=(*attempt.sources, *(Source.FEEDBACK,) * len(given), *(Source.OWN,) * len(completion.tokens)),
        logprobs=(*attempt.logprobs, *completion.logprobs),
        text=completion.text,
        finish=completion.finish,
        turns=attempt.turns + 1,
        before=(*attempt.before, attempt.text, words),
    )
