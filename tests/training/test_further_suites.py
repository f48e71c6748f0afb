"""Suites of a run: further ones of the training family with other parameters."""

import pytest

from etude.errors import UserError
from etude.evaluation.settings import Evaluation
from etude.tasks.sources import TaskSource
from etude.training.data import load_suites

SORTING = TaskSource(family="number_sorting", parameters={"min_numbers": 3, "max_numbers": 3})
LONGER = {"longer": {"min_numbers": 7, "max_numbers": 7}}


def lengths(tasks):
    return {task.answer.count(",") + 1 for task in tasks}


def test_a_further_suite_of_the_family_has_its_own_parameters_and_the_others_of_training():
    suites = load_suites(Evaluation(parameters=LONGER, n=5, split="dev"), SORTING, "sorting", 0, None, None)
    assert {name: lengths(tasks) for name, tasks in suites.items()} == {"sorting": {3}, "longer": {7}}
    alone = load_suites(Evaluation(parameters={"same": {}}, n=5, split="dev", own=False), SORTING, "sorting", 0, None, None)
    assert list(alone) == ["same"] and alone["same"] == suites["sorting"]


@pytest.mark.parametrize(
    ("source", "parameters", "message"),
    [
        (TaskSource(function="etude.tiny:letters"), LONGER, "evaluation.parameters.longer changes parameters of tasks.family"),
        (SORTING, {"sorting": {}}, "two suites would be called 'sorting'"),
        (SORTING, {"longer": {"max_number": 7}}, "unknown parameter of number_sorting 'max_number'"),
    ],
)
def test_a_further_suite_that_cannot_be_is_answered_in_one_sentence(source, parameters, message):
    with pytest.raises(UserError, match=message):
        load_suites(Evaluation(parameters=parameters, n=5, split="dev"), source, "sorting", 0, None, None)
