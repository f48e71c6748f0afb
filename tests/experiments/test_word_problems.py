"""Word problems by the operation that solves them, worked by hand."""

import json

import pytest

from etude.tasks.columns import task_from_row
from experiments.cells import Options
from studies.word_problems import OPERATIONS, SEVERAL, operation_of, operations, reduce_operations, show

ADDITION, SUBTRACTION, *_ = OPERATIONS.values()
KNOWN = {"a": ADDITION, "b": ADDITION, "c": SUBTRACTION, "d": SEVERAL}


def practised(seed: int, before: str, after: str) -> dict[str, object]:
    return {"seed": seed, "items": {"test": "a b c d"}, "right": {"warm_start": {"test": before}, "practice": {"test": after}}}


CELLS = [practised(1, "1000", "1101"), practised(2, "0010", "1110")]


@pytest.mark.parametrize(
    ("row", "operation"),
    [
        ({"question": "7 cups, 2 are in.", "answer": "5", "steps": ["7 - 2 = 5"]}, "one_subtraction"),
        ({"question": "24 and 39, less 4.", "answer": "59", "steps": ["24 + 39 = 63", "63 - 4 = 59"]}, SEVERAL),
        ({"Body": "Packs of 4.", "Question": "How many in 3?", "Answer": 12.0, "Equation": "( 3.0 * 4.0 )"}, "one_multiplication"),
        ({"Body": "It is -3.", "Question": "And 5 more?", "Answer": 2.0, "Equation": "( -3.0 + 5.0 )"}, "one_addition"),
        ({"Body": "9 and 3 for 2.", "Question": "Each?", "Answer": 6.0, "Equation": "( ( 9.0 + 3.0 ) / 2.0 )"}, SEVERAL),
    ],
)
def test_the_operation_is_that_of_the_only_step_or_there_are_several(row, operation):
    assert operation_of(task_from_row(row, origin="here", columns={})) == operation


def test_practice_by_operation_is_what_a_hand_counts():
    rows = {row["id"]: row for row in reduce_operations(CELLS, KNOWN)}
    assert list(rows) == [ADDITION, SUBTRACTION, SEVERAL]
    addition = rows[ADDITION]  # of two problems one answer of four is right before, all four after: 3 of the 4 that are added
    assert (addition["n"], addition["before"], addition["after"], addition["gain"], addition["added"]) == (2, 0.25, 1.0, 0.75, 3)
    assert addition["gain_each_seed"] == [0.5, 1.0] and addition["of_gain"] == 0.75
    assert addition["gain_run_low"] == pytest.approx(0.75 - 12.706 * 0.25, abs=1e-3)  # s / sqrt(2) = 0.25, t(0.975, 1) = 12.706
    assert (rows[SUBTRACTION]["gain"], rows[SUBTRACTION]["of_gain"]) == (0.0, 0.0)
    assert (rows[SEVERAL]["gain_each_seed"], rows[SEVERAL]["of_gain"]) == ([1.0, 0.0], 0.25)
    assert sum(row["of_gain"] for row in rows.values()) == 1.0


def test_a_set_of_other_problems_has_no_rows_and_one_that_loses_no_shares():
    assert reduce_operations(CELLS, {"a": ADDITION}) == reduce_operations(CELLS, {}) == reduce_operations([], KNOWN) == []
    lost = reduce_operations([practised(1, "1100", "1000")], KNOWN)
    assert lost[0]["gain"] == -0.5 and not any("of_gain" in row for row in lost)


def test_operations_are_kept_by_key_and_need_no_data_afterwards(tmp_path):
    for name, row in {
        "word_problems/test.jsonl": {"question": "2 and 3?", "answer": "5", "steps": ["2 + 3 = 5"]},
        "svamp/SVAMP_dev.json": [{"Body": "8 birds.", "Question": "4 fly. Left?", "Answer": 4.0, "Equation": "( 8.0 - 4.0 )"}],
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    found = [operations(Options(tmp_path, data, 0, [], [], is_tiny=False)) for data in (tmp_path, None)]
    assert found[0] == found[1] and sorted(found[0].values()) == [ADDITION, SUBTRACTION]
    assert operations(Options(tmp_path / "none", None, 0, [], [], is_tiny=False)) == {}


def test_the_second_table_stands_after_that_of_the_arms():
    arm = {"id": "base", "set": "test", "n": 4, "seeds": 2, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6}
    first, second = show([arm, *reduce_operations(CELLS, KNOWN)]).split("\n\n| ")
    assert "| base |" in first and "one addition" not in first
    assert "| test | one addition | 2 | 25.0 % [" in second and "| 75.0 % |" in second
