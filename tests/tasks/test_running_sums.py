"""Chains of sums are right, worked in steps that hold, and many."""

import re

from etude.tasks.running_sums import CHECK, LARGEST, TERMS, running_sums
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.verifiers import VERIFIERS

ROWS = list(running_sums("train", 400, seed=1))


def test_every_line_holds_and_the_last_one_says_the_answer():
    for row in ROWS:
        numbers = [int(found.replace(" ", "")) for found in re.findall(r"[-+]? ?\d+", row["question"])]
        assert sum(numbers) == int(row["answer"]) and len(numbers) == row["terms"] in TERMS
        *lines, last = row["worked"].splitlines()
        assert last == f"The answer is {row['answer']}."
        lines, again = lines[: len(numbers) - 1], lines[len(numbers) - 1 :]
        assert not again or (again[0] == CHECK and 0 < len(again) - 1 <= len(lines) and again[1:] == lines[: len(again) - 1])
        assert min(numbers) < 0
        total = numbers[0]
        for line, number in zip(lines, numbers[1:], strict=True):
            assert 1 <= abs(number) <= LARGEST and total >= 0
            sign = "-" if number < 0 else "+"
            assert line == f"{total} {sign} {abs(number)} = {total + number}"
            total += number


def test_chains_of_every_length_come_as_often_and_hardly_any_comes_twice():
    counts = [sum(row["terms"] == terms for row in ROWS) for terms in TERMS]
    assert min(counts) > 100 and 100 < sum(CHECK in row["worked"] for row in ROWS) < 170
    assert len({row["question"] for row in ROWS}) > 390
    assert ROWS[:5] == list(running_sums("train", 5, seed=1)) != list(running_sums("test", 5, seed=1))


def test_running_sums_are_a_task_source_with_right_demonstrations():
    source = TaskSource(function="etude.tasks.running_sums:running_sums")
    for task in load_tasks(source, split="demonstrations", n=20, seed=0):
        assert VERIFIERS[task.verifier](task.worked, task).score == 1.0 and task.metadata["terms"] in TERMS
