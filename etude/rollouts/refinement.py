"""Refinement: an attempt, feedback in words, a revised attempt, for a number of turns.

The first turn is plain sampling, token for token. What follows a turn is given (`Source.FEEDBACK`): an end token where the answer has none,
what the model is told, and the opening of the next answer (`etude.rollouts.prompts.render_feedback`); then the revised answer is drawn, own
tokens as before. An attempt is revised until it is right, until its turns are used up, or until the model has no room for another answer of
full length behind it; by fixed words, which know nothing of right and wrong, always until one of the latter. What was written before stays
as it was sampled, id for id.

Self-Refine (arXiv 2303.17651) has the model write the feedback too; here it is a verifier's, or fixed as in SCoRe (arXiv 2409.12917). The
prefixes of a turn are computed anew, each distinct one once.

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
"""A group, and an attempt in it."""


@dataclass(frozen=True)
class Refinement:
    """What an attempt is told, and how often."""

    turns: int = 2
    """Answers in an attempt at most: the first and its revisions."""
    feedback: Literal["verifier", "fixed"] = "verifier"
    """Who tells: the `verifier`, what it read in an answer that is not right; or `fixed` words after every answer, as in use, where nobody
    knows."""
    verifier_words: str = "{words} Correct it; give the final answer again."
    """What the model is told by the verifier, whose words stand for {words}."""
    fixed_words: str = CHECK
    """What it is told otherwise."""

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
    """First attempts and their rewards → revised ones and theirs, which know the scores of all turns.

    `max_new_tokens` of one turn; `room_tokens` is how long a prefix may be for that many to follow. Keys of turn t are hashed from the
    attempt's names (`names`, its group's place, the task, its number), "turn" and t. `steps` are those that `Reward.step_values` values.
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
    """Return what an attempt is told."""
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
    """Return the attempt with another turn, whose text and end are its own now."""
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
