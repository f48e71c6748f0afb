"""Format reward: check that an answer consists of the requested tagged actions.

    form   1 if it does, else `malformed_score`, with the problem as the message (`etude.tasks.actions`)
    gate   wraps another reward: a malformed answer gets `malformed_score` and is not judged further

Form says nothing about content, so on its own this reward teaches only form: give it a small weight beside a reward that knows what is
right. Identity: a gate whose actions are off gives the wrapped reward's scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from etude.errors import UserError
from etude.rewards.verdict import Verdict
from etude.tasks.actions import Actions
from etude.tasks.task import Task

Pairs = Sequence[tuple[str, Task]]


class FormFeedback:
    """Scores the form of answers."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def judge(self, pairs: Pairs) -> list[Verdict]:
        """Return one verdict for each (text, task), in order.

        >>> FormFeedback(Actions("divide")).judge([("<answer>5</answer>", Task("What is 2 + 3?"))])[0].message
        '0 <subproblem> where at least 2 are asked for'
        """
        problems = [self.actions.find_problem(text) for text, _ in pairs]
        return [
            Verdict(self.actions.malformed_score, message=problem, words=_form_feedback(problem)) if problem else Verdict(1.0)
            for problem in problems
        ]


class Gate:
    """Passes well-formed answers on to another reward, all answers of a call together."""

    def __init__(self, actions: Actions, inner: Callable[[Pairs], Sequence[Verdict]]) -> None:
        self.actions, self.inner = actions, inner

    def judge(self, pairs: Pairs) -> list[Verdict]:
        """Return one verdict for each (text, task), in order; malformed answers are not parsable, others are unless the wrapped reward says
        otherwise.

        Raises UserError for a negative score below `malformed_score`, which would teach the model to break the form.
        """
        problems = [self.actions.find_problem(text) for text, _ in pairs]
        verdicts = self.inner([pair for pair, problem in zip(pairs, problems, strict=True) if not problem])
        for verdict in verdicts:
            if verdict.score is not None and verdict.score < min(0.0, self.actions.malformed_score):
                raise UserError(
                    f"tasks.actions.malformed_score is {self.actions.malformed_score:g}, but a well-formed answer scored {verdict.score:g}"
                    ": set it to the least that the verifier gives, or a malformed answer is worth more"
                )
        passed = iter(verdicts)
        return [self._malformed(problem) if problem else _well_formed(next(passed)) for problem in problems]

    def _malformed(self, problem: str) -> Verdict:
        score = self.actions.malformed_score
        return Verdict(score, {"parsable": 0.0, "form": score}, message=problem, words=_form_feedback(problem))


def _form_feedback(problem: str) -> str:
    """Write the feedback for the model."""
    return f"Your answer does not have the form that was asked for: {problem}."


def _well_formed(verdict: Verdict) -> Verdict:
    return replace(verdict, parts={"parsable": 1.0, **verdict.parts, "form": 1.0})
