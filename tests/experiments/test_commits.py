"""Cells that are kept in the repository are computed from sources that a commit has."""

import json
import subprocess
from pathlib import Path

import pytest

from experiments import cells, commits
from experiments.cells import Options


@pytest.fixture
def repository(tmp_path) -> Path:
    root = tmp_path / "repository"
    for name in ("etude/engine.py", "studies/mine.py", "studies/mine/cells/one-1.json", "docs/page.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("before\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def head(root: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def test_only_sources_count_as_changed(repository):
    for name in ("studies/mine/cells/one-1.json", "studies/mine/result.json", "docs/page.md", "studies/mine/runs/a/metrics.jsonl"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("after\n")
    assert commits.changed_sources(repository) == []
    assert commits.commit_of(f"{head(repository)}-dirty", repository) == head(repository)
    (repository / "etude/engine.py").write_text("after\n")
    (repository / "studies/new.py").write_text("new\n")
    assert sorted(commits.changed_sources(repository)) == ["etude/engine.py", "studies/new.py"]
    assert commits.commit_of(f"{head(repository)}-dirty", repository) == f"{head(repository)}-dirty"


def test_a_commit_of_before_stays_as_it_was_named(repository):
    assert commits.commit_of(f"{'0' * 40}-dirty", repository) == f"{'0' * 40}-dirty"
    assert commits.commit_of("0" * 40, repository) == "0" * 40 and commits.commit_of(None, repository) is None


def test_a_cell_is_refused_in_the_repository_and_not_elsewhere(repository):
    commits.refuse_changed("cell one, seed 1", repository / "studies/mine", repository)
    (repository / "etude/engine.py").write_text("after\n")
    with pytest.raises(SystemExit, match=r"cell one, seed 1 would name a commit .* since etude/engine\.py differs"):
        commits.refuse_changed("cell one, seed 1", repository / "studies/mine", repository)
    commits.refuse_changed("cell one, seed 1", repository.parent / "elsewhere", repository)


def test_a_folder_without_git_has_nothing_changed(tmp_path):
    assert commits.changed_sources(tmp_path) == []


class Refused:
    """A table whose cells must not be computed."""

    settings = staticmethod(lambda arm, seed: {"of": arm})
    defaults = staticmethod(dict)

    def run(self, arm, seed, chosen):
        raise AssertionError("the work began")


def test_a_cell_is_refused_before_the_work_and_kept_ones_are_still_read(tmp_path, monkeypatch):
    (tmp_path / "cells").mkdir()
    kept = {"id": "one", "seed": 1, "settings": {"of": "one"}, "commit": "0-dirty"}
    (tmp_path / "cells" / "one-1.json").write_text(json.dumps(kept))

    def refuse(cell, out):
        raise SystemExit(f"{cell} refused")

    monkeypatch.setattr(cells, "refuse_changed", refuse)
    chosen = Options(tmp_path, None, 1.0, [], [1], is_tiny=False)
    assert cells.compute([("one", 1)], Refused(), chosen) == [kept]
    with pytest.raises(SystemExit, match="cell two, seed 1 refused"):
        cells.compute([("two", 1)], Refused(), chosen)
