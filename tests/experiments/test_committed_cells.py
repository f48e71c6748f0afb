"""The committed cells of every study are read as cells of today, under whatever names they were written, and give the committed result."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

import studies
from experiments.cells import Options
from experiments.study import Study

NAMES = [module.name for module in pkgutil.iter_modules(studies.__path__) if not module.name.startswith("_")]
NAMES = [name for name in NAMES if any(Path(*studies.__path__, name).rglob("*.json"))]  # a new study has no cell yet


@pytest.mark.parametrize("name", NAMES)
def test_committed_cells_load_and_reduce_to_the_committed_rows_and_verdict(name):
    study: Study = importlib.import_module(f"studies.{name}").STUDY
    kept = json.loads((study.folder / "result.json").read_text(encoding="utf8"))
    found = study.find(Options(study.folder, None, hours=-1.0, only=[], seeds=list(study.seeds), is_tiny=False))
    assert found is not None
    _, rows, verdict = found
    assert json.loads(json.dumps(rows)) == kept["rows"]
    assert tuple(verdict) == (kept["verdict"], kept["because"])
