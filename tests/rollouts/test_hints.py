import doctest

import pytest

from etude.engine.completion import Completion
from etude.rollouts import hints
from etude.rollouts.attempts import HINTED, Attempt
from etude.rollouts.hints import hinted, without_hint
from etude.tasks.task import Task


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(hints).failed == 0


def test_the_answer_stands_behind_the_question_whatever_braces_it_has():
    task = Task(({"role": "system", "content": "s"}, {"role": "user", "content": "Which set?"}), "{1, 2}")
    assert hinted(task, " {answer}!").prompt == ({"role": "system", "content": "s"}, {"role": "user", "content": "Which set? {1, 2}!"})
    with pytest.raises(ValueError, match="none to show"):
        hinted(Task("?"))


def test_an_attempt_that_saw_the_answer_becomes_one_at_the_task_itself():
    seen = Attempt.of((1, 2, 3, 4), Completion((7, 8), (-1.0, -2.0), "text", "stop", 5, 0))
    kept = without_hint(seen, (1, 2))
    assert kept.tokens == (1, 2, 7, 8) and kept.prompt == (1, 2) and kept.own_tokens == (7, 8)
    assert (kept.view, kept.text, kept.logprobs) == (HINTED, "text", (-1.0, -2.0))
