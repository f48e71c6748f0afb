"""What a file's text says of its names, without running it."""

import sys

import pytest

from etude.errors import UserError
from etude.tasks.function_check import check_function
from etude.tasks.sources import TaskSource, load_tasks


@pytest.mark.parametrize(
    "text",
    [
        "def judge(text, task): ...",
        "async def judge(text, task): ...",
        "class judge: ...",
        "judge = lambda text, task: 1.0",
        "judge: object = print",
        "other, (judge, *rest) = 1, (print, 2)",
        "import judge",
        "import judge.part",
        "import json as judge",
        "from json import loads as judge",
        "from json import *",
        "try:\n    from fast import judge\nexcept ImportError:\n    pass",
        "if True:\n    with open('x') as judge:\n        pass",
        "for judge in (): ...",
        "def make():\n    global judge\n    judge = print\nmake()",
        "globals()['judge'] = print",
        "exec('judge = print')",
        "def __getattr__(name): return print",
        "print(judge := 1)",
    ],
)
def test_a_name_that_a_file_may_have_is_taken(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    check_function(f"{tmp_path / 'mine.py'}:judge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def judg(text, task): ...", "unknown function in .*mine.py 'judge': did you mean 'judg'"),
        ("def other():\n    def judge(): ...", "unknown function in .*mine.py 'judge':"),
        ("class Other:\n    def judge(self): ...", "unknown function"),
        ("class Other:\n    judge = 1", "unknown function"),
        ("print(judge)", "unknown function"),
        ("", "unknown function"),
        ("def judge(:", "mine.py does not run: SyntaxError"),
        ("x = 1\0", "mine.py does not run: "),
        ("(" * 100_000, "mine.py does not run: "),
    ],
)
def test_a_missing_name_in_a_file_is_reported(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=message):
        check_function(f"{tmp_path / 'mine.py'}:judge")


def test_modules_are_looked_up_and_their_packages_not_imported(tmp_path, monkeypatch):
    (tmp_path / "outer_package" / "inner").mkdir(parents=True)
    for folder in ("outer_package", "outer_package/inner"):
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('this package was run')")
    (tmp_path / "outer_package" / "inner" / "mine.py").write_text("raise RuntimeError('this was run')\ndef judge(text, task): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_function("outer_package.inner.mine:judge")
    assert not [name for name in sys.modules if name.startswith("outer_package")]
    with pytest.raises(UserError, match=r"unknown function in outer_package\.inner\.mine 'jugde': did you mean 'judge'"):
        check_function("outer_package.inner.mine:jugde")
    with pytest.raises(UserError, match=r"module 'outer_package\.other\.mine' cannot be imported: .*'outer_package\.other'.*: mine\.py$"):
        check_function("outer_package.other.mine:judge")
    for known in ("json:loads", "math:sqrt", "sys:exit"):  # text, an extension, built in
        check_function(known)


def test_loading_tasks_runs_no_verifier_s_file(tmp_path):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w').close()\ndef judge(text, task): return 1.0")
    (tmp_path / "tasks.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    source = TaskSource(path=[str(tmp_path / "tasks.jsonl")], verifier=f"{tmp_path / 'mine.py'}:judge")
    assert load_tasks(source, split="train", n=None, seed=0)[0].verifier == source.verifier
    assert not (tmp_path / "was_run").exists()
