import json

import pytest

from etude.errors import UserError
from etude.tasks.comparisons import comparison_from_row, load_comparisons

USER = [{"role": "user", "content": "2 + 2?"}]


def said(text):
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": USER, "chosen": said("4"), "rejected": said("5")},
        {"prompt": USER, "chosen": "4", "rejected": "5", "score": 3},
        {"chosen": USER + said("4"), "rejected": USER + said("5")},
        {"prompt": USER, "better": "4", "worse": "5"},
    ],
)
def test_rows_of_every_usual_form_are_read_alike(row):
    columns = {"chosen": "better", "rejected": "worse"} if "better" in row else {}
    found = comparison_from_row(row, columns, "f.jsonl:1")
    assert (found.task.prompt, found.chosen, found.rejected, found.task.origin) == (tuple(USER), "4", "5", "f.jsonl:1")


def test_a_prompt_of_text_stays_text():
    assert comparison_from_row({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}, {}, "").task.prompt == "2 + 2?"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "chosen": "b"}, "f:1: a preference needs prompt, chosen, rejected, but column 'rejected' is not there"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "f:1: chosen and rejected are the same text"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "f:1: a prompt must be text"),
        ({"prompt": said("a"), "chosen": "b", "rejected": "c"}, "f:1: a prompt must be text, or messages that end with the user's"),
        ({"prompt": "a", "chosen": 3, "rejected": "c"}, "f:1: must be text or a list of"),
        ({"prompt": "a", "chosen": USER, "rejected": "c"}, "f:1: an answer must be text or one message of the assistant's"),
        ({"chosen": USER + said("a"), "rejected": said("b")}, "f:1: without a prompt"),
        ({"question": "a", "chosen": "b", "rejected": "c"}, "f:1: there is no column 'prompt' among question, chosen, rejected: name"),
    ],
)
def test_errors_in_rows_name_the_row_and_the_problem(row, says):
    with pytest.raises(UserError, match=says):
        comparison_from_row(row, {}, "f:1")


def test_files_are_read_one_after_another_and_counted(tmp_path):
    for name, answers in (("a", "45"), ("b", "67")):
        rows = [{"prompt": f"{name}?", "chosen": answer, "rejected": "0"} for answer in answers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [each.chosen for each in load_comparisons(["a.jsonl", "b.jsonl"], {}, 3, tmp_path)] == ["4", "5", "6"]
    with pytest.raises(UserError, match=r"preferences\.n is 9, but the files have 4 rows"):
        load_comparisons(["a.jsonl", "b.jsonl"], {}, 9, tmp_path)
    with pytest.raises(UserError, match=r"preferences\.columns has 'better': its names are prompt, chosen, rejected"):
        load_comparisons([], {"better": "chosen"}, None, tmp_path)
