import pytest

from etude.tasks.task import Task
from etude.tasks.votes import Tally, vote

NUMERIC = Task("3 + 4?", verifier="numeric")
CHOICE = Task("Which?", verifier="choice", metadata={"choices": ["a stone", "a pear"]})


@pytest.mark.parametrize(
    ("task", "texts", "answer"),
    [
        (NUMERIC, ["7", "3 + 4 = 7.0", "The answer is $7."], "7"),
        (NUMERIC, ["", "seven", "It is 7 or 8"], None),
        (CHOICE, ["B", "The answer is (b).", "a pear"], "B"),
        (CHOICE, ["", "A or B"], None),
        (Task("2 + 2?", verifier="choice", metadata={"choices": [3, 4]}), ["B", "4", "B. 4"], "B"),
        (Task("2 + 2?", verifier="choice", metadata={"choices": None}), ["B", "(b)"], "B"),
        (Task("Sort: 2, -1"), ["['-1', '2']", "[-1, 2.0]", "The answer is [-1,2]"], "['-1', '2']"),
        (Task("Sort: 2, 1"), ["[1, 2]", "The answer is [1, 2].", "The answer is [1, 2].\nThey are sorted."], "['1', '2']"),
        (Task("Capital?"), ["Paris", "The answer is **paris**.", " paris ", "The answer is Paris.\nIt lies on the Seine."], "paris"),
        (Task("Grid?"), ["The answer is\n1 2\n3 4", "1 2\n3 4", "The answer is:\n1 2\n3 4\n\nSo it is."], "1 2 3 4"),
        (Task("Capital?"), ["", "  "], None),
    ],
)
def test_equal_answers_are_equal_votes(task, texts, answer):
    assert {vote(text, task) for text in texts} == {answer}


@pytest.mark.parametrize("text", ["\ud800", "[" * 5_000, "[1, 2", "9" * 10_000, "[" + "9" * 5_000 + "]", "[0x" + "f" * 3_600 + "]"])
def test_whatever_a_model_writes_votes_for_something_or_nothing(text):
    for task in (NUMERIC, CHOICE, Task("?")):
        assert isinstance(vote(text, task), str | None)


def test_the_answer_of_most_wins_and_of_several_the_first():
    tally = Tally.of(["8", "7", None, "7"])
    assert (tally.winner, tally.share("7"), tally.share("8"), tally.share("9"), tally.share(None)) == ("7", 0.5, 0.25, 0.0, 0.0)
    assert Tally.of(["8", "7", "7", "8"]).winner == "8"
    assert (Tally.of([None, None]).winner, Tally.of([None]).share(None)) == (None, 0.0)
