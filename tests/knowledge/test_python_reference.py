"""The corpus that is there wherever Python is."""

import json
import sys

import pytest

from etude.errors import UserError
from etude.knowledge import python_reference
from etude.knowledge.python_reference import write


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    counts = write(folder)
    found = {name: [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()] for name in counts}
    assert counts == {name: len(own) for name, own in found.items()}
    return found


def test_pages_are_the_reference_and_what_modules_say_and_no_definition_names_its_term(rows):
    assert {"string-methods", "typesmapping", "statistics", "heapq"} <= {row["title"] for row in rows["pages"]}
    assert sum(len(row["text"].split()) for row in rows["pages"]) > 50_000
    assert len(rows["glossary"]) > 50 and {row["section"] for row in rows["glossary"]} >= {"str", "list", "set"}
    assert not any(row["term"] in row["definition"].lower() for row in rows["glossary"])


def test_every_question_has_four_different_choices_of_its_module_and_the_right_one(rows):
    of = {row["question"]: row for row in rows["questions"]}
    rmtree = of["What does shutil.rmtree do?"]
    assert rmtree["choices"][rmtree["answer"]] == "Recursively delete a directory tree." and rmtree["module"] == "shutil"
    assert len(of) == len(rows["questions"]) > 300
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] < 4 for row in of.values())


def test_it_is_the_same_each_time(rows, tmp_path):
    write(tmp_path)
    assert [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()] == rows["questions"]


def test_a_python_without_sources_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(python_reference, "_modules", lambda: iter(()))
    with pytest.raises(UserError, match="this Python came without its sources or docstrings: use another"):
        write(tmp_path / "sets")
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match=r"this Python came without its reference \(pydoc_data\): use another"):
        write(tmp_path / "sets")
    assert not (tmp_path / "sets").exists()
