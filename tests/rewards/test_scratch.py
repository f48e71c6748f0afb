"""The folder for temporary files is empty afterwards, whatever was made in it."""

import os
import sys

import pytest

from etude.rewards.scratch import empty


def test_a_folder_is_emptied_but_for_what_is_kept_and_links_are_not_followed(tmp_path):
    scratch, outside = tmp_path / "scratch", tmp_path / "outside"
    (scratch / "a" / "b").mkdir(parents=True)
    (scratch / "kept").mkdir()
    outside.mkdir()
    for path in (scratch / "a" / "b" / "file", scratch / "kept" / "file", scratch / "moved-0", outside / "file"):
        path.write_text("x")
    (scratch / "link").symlink_to(outside)
    (scratch / "a" / "link").symlink_to(outside)
    os.mkfifo(scratch / "a" / "pipe")
    (scratch / "a" / "closed").mkdir(mode=0)
    empty(str(scratch), ["kept"])
    assert [path.name for path in scratch.iterdir()] == ["kept"]
    assert (scratch / "kept" / "file").exists() and (outside / "file").exists()
    empty(str(scratch))
    assert not list(scratch.iterdir())


def test_very_deep_folders_are_removed_without_recursion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(100):
        os.mkdir("x" * 50)
        os.chdir("x" * 50)
    os.chdir(tmp_path)
    frames, limit = 0, sys.getrecursionlimit()
    frame = sys._getframe()
    while frame:
        frames, frame = frames + 1, frame.f_back
    sys.setrecursionlimit(frames + 40)
    try:
        empty(str(tmp_path))
    finally:
        sys.setrecursionlimit(limit)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
def test_files_that_cannot_be_removed_stay(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    tmp_path.chmod(0o500)
    empty(str(tmp_path))
    assert (tmp_path / "folder").exists()
    tmp_path.chmod(0o700)
