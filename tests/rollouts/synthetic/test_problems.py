import pytest

from etude.errors import UserError
from etude.rollouts.synthetic.problems import FLAWS, asking, flaw_of, leaks, read_problem
from etude.rollouts.synthetic.prompts import writing_of_problem, writing_of_variant
from etude.rollouts.synthetic.settings import SyntheticTasksSettings, Window
from etude.tasks.task import Task

PENS = Task("Ann has 7 pens and gives 2 to Bob. How many are left?", "5", "numeric")
SORT = Task("Sort in descending order: 3, -1, 2", "['3', '2', '-1']")


def flaw(problem, of=PENS, **changes):
    checks = {"is_finished": True, "shown": [of], "written": set(), "measured": set(), "max_overlap": 0.7} | changes
    return flaw_of(asking(of, problem), **checks)


def test_a_problem_is_the_first_paragraph_without_its_label():
    assert read_problem(" Problem: Tom has 3 pens.\nHow many?\n\nSolution: 3", "length") == ("Tom has 3 pens.\nHow many?", True)
    assert read_problem("How many?\nAnswer: 3", "length") == ("How many?", True)
    assert read_problem("How many?", "stop") == ("How many?", True)
    assert read_problem("How ma", "length") == ("How ma", False)
    assert read_problem("", "stop") == ("", True)


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Bob has 5 pens. How many has he?", "5"),
        ("Bob has 5.0 pens. How many has he?", "5"),
        ("Bob had 9 and lost 4. The answer is five.", "5"),
        ("Bob had 9 and lost 4. #### x", "5"),
        ("Sort in descending order: 3, 2, -1", "['3', '2', '-1']"),
        ("Sort 3.0 2 -1 now", "['3', '2', '-1']"),
        ("Say: it was Paris, in France", "Paris in France"),
    ],
)
def test_a_problem_that_contains_its_answer_is_rejected(problem, answer):
    task = Task("something else altogether", answer)
    assert leaks(problem, answer)
    assert flaw(problem, task) == "leak"


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("Bob has 15 pens and 10 are red. How many are not?", "5"),
        ("Bob has 9 pens, and loses 4 of them.", "5"),
        ("Sort in descending order: 2, 3, -1", "['3', '2', '-1']"),
        ("Sort in descending order: 3, 2, 1", "['3', '2', '-1']"),
        ("Name the capital of France.", "Paris in France"),
        ("Which of them?", None),
    ],
)
def test_a_problem_that_does_not_contain_its_answer_is_not_rejected_for_it(problem, answer):
    assert not leaks(problem, answer)


def test_each_flaw_is_found_and_a_sound_problem_has_none():
    sound = "Kim baked 11 cakes and sold 6 of them. What has she now?"
    assert flaw(sound) == ""
    assert flaw(sound, is_finished=False) == "unfinished"
    assert flaw("How?") == flaw("") == flaw("[4, 5, 6]") == flaw("['a b c', 'd']") == "empty"
    assert flaw("Kim baked 11 cakes and sold 6. She has 5, has she not?") == "leak"
    assert flaw(PENS.question) == flaw("Ann has 8 pens and gives 2 to Bob. How many are left?") == "copy"
    assert flaw(sound, written={Task(sound).key}) == "copy"
    assert flaw(sound, measured={Task(sound).key}) == "measured"
    assert flaw("Ann has 8 pens and gives 2 to Bob. How many are left?", max_overlap=1.0) == ""
    assert set(FLAWS) == {"unfinished", "empty", "leak", "copy", "measured"}


def test_other_numbers_in_another_order_are_no_copy_of_a_list():
    assert flaw("Sort in descending order: 2, 3, -1", SORT) == ""


def test_a_problem_is_asked_and_judged_as_its_task_is():
    chat = Task(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 2?"}), "3", "numeric", instruction="Say why.")
    problem = asking(chat, "2 + 1?")
    assert problem.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 1?"})
    assert (problem.answer, problem.verifier, problem.instruction) == ("3", "numeric", "Say why.")
    writing = writing_of_variant(chat, "It is 3.", [("4 + 4?", "8")])
    assert writing.prompt[0] == chat.prompt[0] and writing.answer is None and not writing.instruction


def test_a_writer_sees_the_solution_and_other_problems_but_not_the_one_it_came_from():
    writing = writing_of_variant(PENS, "7 - 2 = 5", [("What is 1 + 1?", "1 + 1 = 2")])
    assert writing.question.endswith("Solution: 1 + 1 = 2\nProblem: What is 1 + 1?\n\nSolution: 7 - 2 = 5\nProblem:")
    assert "Ann" not in writing.question
    assert writing_of_problem(PENS, ["What is 1 + 1?"]).question.endswith("Problem: What is 1 + 1?\n\nProblem:")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problems": 1}, "synthetic_tasks.problems must be at least 2, got 1"),
        ({"window": Window(0.6, 0.5)}, "synthetic_tasks.window must be a low and a high share"),
        ({"max_overlap": 2.0}, r"synthetic_tasks.max_overlap must be in \[0, 1\], got 2.0"),
        ({"method": "proposer", "shots": 0}, "synthetic_tasks.shots is 0, but a proposer writes problems like those that are shown"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        SyntheticTasksSettings(**{"method": "svs"} | settings)
