"""The notebooks of docs/tutorials say what is there, hold what they printed, and run.

`make notebooks` runs all of them; here those run that need no language model.
"""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from experiments.pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
IN_SECONDS = ("read_a_run", "write_a_callback")
"""Those whose models are random ones."""
Cell = dict[str, Any]


def cells_of(path: Path, kind: str = "code") -> list[Cell]:
    return [cell for cell in json.loads(path.read_text(encoding="utf8"))["cells"] if cell["cell_type"] == kind]


def source_of(cell: Cell) -> str:
    return "".join(cell["source"])


def printed_of(cell: Cell) -> str:
    return "".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in cell["outputs"])


def imports_of(code: str) -> Iterator[tuple[str, str]]:
    """The names of etude that code imports, each with its module."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "etude":
            yield from ((node.module, alias.name) for alias in node.names)


def test_there_are_six_tutorials_and_the_site_shows_each():
    shown = re.findall(r"^ +- tutorials/(\w+)\.md$", (ROOT / "mkdocs.yml").read_text(encoding="utf8"), re.MULTILINE)
    assert len(shown) == 6 and sorted(shown) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_tutorial_imports_from_etude_is_there(path):
    imported = [name for cell in cells_of(path) for name in imports_of(source_of(cell))]
    assert imported
    assert [name for module, name in imported if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_holds_what_it_printed(path):
    cells = cells_of(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "cells were not run in order: `make notebooks`"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert not any("\x1b" in printed_of(cell) for cell in cells)
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) // 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_links_to_files_that_are_there(path):
    text = "\n".join(map(source_of, cells_of(path, "markdown")))
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("name", IN_SECONDS)
def test_a_tutorial_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    matplotlib.use("Agg")
    found: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells_of(ROOT / f"docs/tutorials/{name}.ipynb"):
        exec(compile(source_of(cell), name, "exec"), found)
    if name == "read_a_run":
        assert found["good"].after.accuracy > 0.9 > 0.1 > found["bad"].after.accuracy, (
            "the text says that one learns and the other does not"
        )
    else:
        assert found["result"].after.accuracy < 0.95, "the text says that a dislike costs accuracy"
        steps = [row for row in found["rows"] if row["phase"] == "practice"]
        assert "ended after step" in capsys.readouterr().out and len(steps) == 40
