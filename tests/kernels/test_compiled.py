"""How kernels are compiled, kept, and done without."""

import ctypes
import logging
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
        with caplog.at_level(logging.WARNING):
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


@needs_compiler
def test_a_compiled_library_is_kept(small):
    path = compiled._compiled("small.cpp")
    before = path.stat().st_mtime_ns
    assert compiled._compiled("small.cpp") == path and path.stat().st_mtime_ns == before and list(path.parent.iterdir()) == [path]


@needs_compiler
def test_a_header_belongs_to_what_is_compiled(small):
    before = compiled._compiled("small.cpp")
    (small / "small.h").write_text("#define NUMBER 2\n")
    after = compiled._compiled("small.cpp")
    assert after != before and [ctypes.CDLL(str(path)).number() for path in (before, after)] == [1, 2]
