"""How kernels are compiled, kept, and done without."""

import logging

import pytest
import torch

from etude.kernels import compiled, decoding, update

CPU = torch.device("cpu")
SOURCES = ("decoding.cpp", "update.cpp")
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


@needs_compiler
@pytest.mark.parametrize("source", SOURCES)
def test_a_compiled_library_is_kept(source, tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    path = compiled._compiled(source)
    before = path.stat().st_mtime_ns
    assert compiled._compiled(source) == path and path.stat().st_mtime_ns == before and list(path.parent.iterdir()) == [path]


@needs_compiler
def test_a_header_belongs_to_what_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    for path in compiled.HERE.glob("*.[ch]*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(compiled, "HERE", tmp_path)
    before = compiled._compiled("decoding.cpp")
    (tmp_path / "vectors.h").write_text((tmp_path / "vectors.h").read_text() + "\n")
    assert compiled._compiled("decoding.cpp") != before
