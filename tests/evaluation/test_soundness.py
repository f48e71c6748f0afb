"""Fluency and topic of an answer by the start model's log-probs, by hand."""

from dataclasses import replace

import pytest

from etude.evaluation.soundness import Soundness, request_of, soundness
from etude.tasks.task import Task

LIKELY = {((1,), (5, 6)): (-1.0, -2.0), ((2,), (5, 6)): (-4.0, -5.0), ((1,), (7,)): (-6.0,), ((2,), (7,)): (-6.5,)}


def table(pairs):
    return [LIKELY[request, answer] for request, answer in pairs]


def test_fluency_is_the_mean_and_topic_the_difference_to_the_next_request_that_differs():
    found = soundness([(1,), (1,), (2,)], [[(5, 6)], [(7,)], [(5, 6), (7,)]], table)
    assert found == [[Soundness(-1.5, 6.0)], [Soundness(-6.0, 0.5)], [Soundness(-4.5, -6.0), Soundness(-6.5, -0.5)]]
    assert [each.problem() for row in found for each in row] == [None, "fluency", "topic", "fluency"]


def test_an_answer_without_tokens_is_not_sound_and_equal_requests_cannot_be_compared():
    assert soundness([(1,), (2,)], [[()], []], table)[0][0].problem() == "fluency"
    assert soundness([(1,), (1,)], [[(7,)], []], table, spare=[(1,), (2,)]) == [[Soundness(-6.0, 0.5)], []]
    with pytest.raises(ValueError, match="all requests are the same"):
        soundness([(1,), (1,)], [[(7,)], [(7,)]], table)


def test_a_request_is_the_task_without_its_rules_after_the_system_message():
    task = Task("Describe a bus. Use no commas.", metadata={"subject": "Describe a bus."})
    assert request_of(task).question == "Describe a bus."
    chat = replace(task, prompt=({"role": "system", "content": "Be kind."}, {"role": "user", "content": task.prompt}))
    assert request_of(chat).prompt == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Describe a bus."})
    assert request_of(Task("What is 2 + 2?")).question == "What is 2 + 2?"
