"""Format reward: check that an answer consists of the requested tagged actions.

    form   1 if it does, else `malformed_score`, with the problem as the message (`etude.tasks.actions`)
    gate   wraps another reward: a malformed answer gets `malformed_score` and is not judged further

Form says nothing about content, so on its own this reward teaches only form: give it a small weight beside a reward that knows what is
right. Identity: a gate whose actions are off gives the wrapped reward's scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from etude.errors import UserError
from etude.tasks.actions import Actions
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Pairs = Sequence[tuple[str, Task]]


class FormatReward:
    """Scores the form of answers."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def judge(self, pairs: Pairs) -> list[Reward]:
        """Return one reward for each (text, task), in order.

        >>> FormatReward(Actions("divide")).judge([("<answer>5</answer>", Task("What is 2 + 3?"))])[0].message
        '0 <subproblem> where at least 2 are asked for'
        """
        problems = [self.actions.find_problem(text) for text, _ in pairs]
        return [
            Reward(self.actions.malformed_score, message=problem, words=_form_feedback(problem)) if problem else Reward(1.0)
            for problem in problems
        ]


class Gate:
    """Passes well-formed answers on to another reward, all answers of a call together."""

    def __init__(self, actions: Actions, inner: Callable[[Pairs], Sequence[Reward]]) -> None:
        self.actions, self.inner = actions, inner

    def judge(self, pairs: Pairs) -> list[Reward]:
        """Return one reward for each (text, task), in order; malformed answers are not parsable, others are unless the wrapped reward says
        otherwise.

        Raises UserError for a negative score below `malformed_score`, which would teach the model to break the form.
        """
        problems = [self.actions.find_problem(text) for text, _ in pairs]
        rewards = self.inner([pair for pair, problem in zip(pairs, problems, strict=True) if not problem])
        for reward in rewards:
            if reward.score is not None and reward.score < min(0.0, self.actions.malformed_score):
                raise UserError(
                    f"tasks.actions.malformed_score is {self.actions.malformed_score:g}, but a well-formed answer scored {reward.score:g}"
                    ": set it to the least that the verifier gives, or a malformed answer is worth more"
                )
        passed = iter(rewards)
        return [self._malformed(problem) if problem else _well_formed(next(passed)) for problem in problems]

    def _malformed(self, problem: str) -> Reward:
        score = self.actions.malformed_score
        return Reward(score, {"parsable": 0.0, "format": score}, message=problem, words=_form_feedback(problem))


def _form_feedback(problem: str) -> str:
    """Write the feedback for the model."""
    return f"Your answer does not have the form that was asked for: {problem}."


def _well_formed(reward: Reward) -> Reward:
    return replace(reward, parts={"parsable": 1.0, **reward.parts, "format": 1.0})
