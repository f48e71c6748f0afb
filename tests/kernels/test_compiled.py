"""How kernels are compiled, kept, and done without."""

import ctypes
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from etude.kernels import compiled, decoding, update

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(not update.kernels_for(CPU, torch.float32), reason="there is no C++ compiler")


@pytest.mark.parametrize("stage", [decoding, update])
def test_without_a_compiler_there_are_no_kernels_and_one_sentence_says_why(stage, monkeypatch, caplog):
    for compiler, reason in (("", "CXX is set to nothing"), ("/no/such/compiler", "No such file"), ("false", "returned non-zero")):
        monkeypatch.setenv("CXX", compiler)
        for cached in (stage._kernels, compiled._say):
            cached.cache_clear()
        with caplog.at_level(logging.WARNING, logger="etude"):
            assert stage.kernels_for(CPU, torch.float32) is None and stage.kernels_for(CPU, torch.bfloat16) is None
        (record,) = caplog.records
        assert "computing by torch's operations" in record.message and reason in record.message
        caplog.clear()
    for cached in (stage._kernels, compiled._say):
        cached.cache_clear()


def test_what_is_not_on_a_processor_or_of_another_precision_has_no_kernels():
    for stage in (decoding, update):
        assert stage.kernels_for(torch.device("meta"), torch.float32) is None and stage.kernels_for(CPU, torch.float64) is None


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A folder with a source and a header that are compiled in no time; etude's own are, too, where their kernels are tested."""
    (tmp_path / "small.cpp").write_text('#include "small.h"\nextern "C" int number() { return NUMBER; }\n')
    (tmp_path / "small.h").write_text("#define NUMBER 1\n")
    monkeypatch.setattr(compiled, "HERE", tmp_path)
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def kept_in(small: Path) -> list[Path]:
    return sorted((small / "cache" / "kernels").iterdir())


def number(small: Path, caplog: pytest.LogCaptureFixture) -> int | str:
    """What the library's one function gives, or the sentence that says why there is none."""
    compiled._say.cache_clear()
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="etude"):
        found = compiled.library("small.cpp", {"number": []})
    if found is None:
        (record,) = caplog.records
        assert "computing by torch's operations" in record.message and "\n" not in record.message
        return record.message
    assert not caplog.records
    found.number.restype = ctypes.c_int
    return found.number()


@needs_compiler
def test_a_compiled_library_is_kept_and_its_header_belongs_to_it(small, caplog):
    assert number(small, caplog) == 1
    (path,) = kept_in(small)
    before = path.stat().st_mtime_ns
    assert number(small, caplog) == 1 and kept_in(small) == [path] and path.stat().st_mtime_ns == before
    (small / "small.h").write_text("#define NUMBER 2\n")
    assert number(small, caplog) == 2 and len(kept_in(small)) == 2


@needs_compiler
def test_a_damaged_library_is_compiled_anew(small, caplog):
    assert number(small, caplog) == 1
    (path,) = kept_in(small)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[: len(content) // 2].ljust(len(content), b"\0"), b"", b"\x7fELF"):
        path.unlink()  # a process that has it loaded keeps its own
        path.write_bytes(damaged)
        path.chmod(0o755)
        assert number(small, caplog) == 1 and path.read_bytes() == content


@needs_compiler
def test_three_processes_compile_at_once_and_all_can_use_what_they_made(small):
    """Over a damaged library, too, which each of them replaces."""
    code = (
        "import sys, types, pathlib; sys.modules['torch'] = types.SimpleNamespace(float32=1, bfloat16=2, Tensor=None);"
        "sys.modules['etude.models.load'] = types.SimpleNamespace(cache_folder=lambda: pathlib.Path(sys.argv[2]));"
        "from etude.kernels import compiled; compiled.HERE = pathlib.Path(sys.argv[1]);"
        "print(compiled.library('small.cpp', {'number': []}).number)"
    )

    def run(_: int) -> str:
        done = subprocess.run([sys.executable, "-c", code, str(small), str(small / "cache")], capture_output=True, text=True)
        return done.stdout or done.stderr

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            assert all("_FuncPtr" in said for said in pool.map(run, range(3)))
        (path,) = kept_in(small)
        path.write_bytes(path.read_bytes()[:5000])


@needs_compiler
@pytest.mark.parametrize("umask", [0o002, 0o000, 0o077])
def test_nobody_else_may_write_the_folder_or_a_library_whatever_the_umask(small, caplog, umask):
    before = os.umask(umask)
    try:
        assert number(small, caplog) == 1
    finally:
        os.umask(before)
    (path,) = kept_in(small)
    assert not (path.stat().st_mode | path.parent.stat().st_mode) & 0o022


@pytest.fixture
def give_away(monkeypatch):
    """Make a path another user's."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 65534)

    return give


@needs_compiler
def test_a_library_that_another_user_planted_is_not_loaded(small, caplog, give_away):
    """It gives 13, and its name has its own checksum; this user's own gives 1."""
    assert number(small, caplog) == 1
    (own,) = kept_in(small)
    (small / "small.h").write_text("#define NUMBER 13\n")
    assert number(small, caplog) == 13
    (evil,) = {*kept_in(small)} - {own}
    (small / "small.h").write_text("#define NUMBER 1\n")
    planted = own.with_name(own.name[:16] + evil.name[16:])
    evil.rename(planted)

    def loaded() -> int | str:
        own.unlink(missing_ok=True)
        return number(small, caplog)

    assert loaded() == 13, "nothing but its owner and mode speaks against it"
    planted.chmod(0o777)
    assert loaded() == 1
    planted.chmod(0o755)
    link = planted.rename(small / "elsewhere.so")
    planted.symlink_to(link)
    assert loaded() == 1
    planted.unlink()
    link.rename(planted)
    if os.geteuid() == 0:  # another user than root cannot give a file away
        give_away(planted)
        assert loaded() == 1


@needs_compiler
def test_a_folder_of_another_user_is_refused_in_a_sentence(small, caplog, give_away):
    assert number(small, caplog) == 1
    folder = small / "cache" / "kernels"
    folder.chmod(0o777)
    assert number(small, caplog) == 1 and not folder.stat().st_mode & 0o022, "one's own is put right"
    (small / "cache").chmod(0o777)
    assert "others may rename" in number(small, caplog)
    (small / "cache").chmod(0o755)
    folder.rename(small / "theirs")
    folder.symlink_to(small / "theirs")
    assert "is a link" in number(small, caplog)
    folder.unlink()
    (small / "theirs").rename(folder)
    (small / "cache").rename(small / "theirs")
    (small / "cache").symlink_to(small / "theirs")
    assert number(small, caplog) == 1, "a link to a folder of one's own is none of anybody else's"
    for path in (folder, small / "theirs"):
        give_away(path)
        assert "belongs to another user (uid" in number(small, caplog)


@needs_compiler
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo >&2; echo '   ' >&2; exit 1", "returned non-zero exit status 1"),
        (r"printf '\377\376 broken\n' >&2; exit 1", "broken"),
        ("kill -9 $$", "died with"),
        ("exit 0", "No such file"),
        ('[ "$1" = --version ] || echo "int other;" | REAL -shared -x c - -o "$OUT"', "lacks number"),
        ('[ "$1" = --version ] || printf "\\177ELF" > "$OUT"', "file too short"),
    ],
)
def test_every_way_in_which_a_compiler_fails_is_one_sentence_and_keeps_nothing(small, monkeypatch, caplog, script, reason):
    compiler = small / "compiler"
    script = script.replace("REAL", os.environ.get("CXX", "c++"))
    compiler.write_text(f"#!/bin/sh\nfor OUT; do :; done\n{script}\n")
    compiler.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("CXX", str(compiler))
        assert reason in number(small, caplog)
    assert not list((small / "cache").rglob("*.so"))
    assert number(small, caplog) == 1
