"""`etude models export`: what it prints and keeps, what it refuses, and an export measured beside its model."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.export import formats
from etude.export.formats import FORMATS
from etude.recipes.export import export

COMMAND = "models export tiny-random --format"
MISTAKES = {
    "models export tiny-random": "export needs --format, one of gguf, int8, onnx, openvino, and --out: etude models export MODEL",
    "models export --format int8 --out out": "export needs a model: etude models export MODEL",
    f"{COMMAND} ggff --out out": "unknown format 'ggff': did you mean 'gguf'? Choices: gguf, int8, onnx, openvino",
    f"{COMMAND} gguf --out out": "--out out: gguf is one file: name one that ends in .gguf",
    f"{COMMAND} int8 --out out.gguf": "--out out.gguf: int8 is a folder: name a folder",
    f"{COMMAND} gguf --out out.gguf --quantization q8": "unknown quantization of gguf 'q8': did you mean 'q8_0'?",
    f"{COMMAND} gguf --out out.gguf": "the tokenizer of tiny-random is WordLevel, and GGUF files are written here with byte-level BPE",
    f"{COMMAND} int8 --out there": "--out there: exists already: name another place, or replace it with --force",
    f"{COMMAND} int8 --out there --force": "--out there: --force replaces what an export of int8 wrote, and this is something else",
    f"{COMMAND} int8 --out out --steps 3": "unknown option --steps: etude models export MODEL",
    f"{COMMAND} int8 --out out --evaluate": "--evaluate measures on the tasks of a run, and tiny-random is in no run's folder: name a ",
    f"{COMMAND} int8 --out out --evaluate --evaluation.path none.jsonl --stepz 3": "unknown setting --stepz",
    "models export nowhere --format int8 --out out": "unknown model 'nowhere'",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_and_writes_nothing(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"etude: {MISTAKES[command]}") and captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_package_is_named_with_the_extra_that_has_it(name, monkeypatch, tmp_path, capsys):
    kind = FORMATS[name]
    monkeypatch.setattr(formats, "find_spec", lambda module: None if module in kind.needs else find_spec(module))
    out = tmp_path / f"out{kind.ending}"
    assert main(["models", "export", "tiny-random", "--format", name, "--out", str(out)]) == 2
    assert f"--format {name} needs {' and '.join(kind.needs)}: pip install 'etude[{kind.extra}]'" in capsys.readouterr().err
    monkeypatch.setattr(formats, "find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"^running {name} needs .*: pip install 'etude\[{kind.extra}\]'$"):
        kind.check_runtime()


def test_a_run_is_exported_and_measured_on_its_own_evaluation(finished, tmp_path, capsys):
    out, page = tmp_path / "out", tmp_path / "found.json"
    command = ["models", "export", str(finished / "model"), "--format", "int8", "--out", str(out), "--evaluate", "--json", str(page)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert re.match(
        rf"{out}: 8-bit weights and activations .*, w8a8, [\d.]+ MB; the model has [\d.]+ MB\nto run it:\n  vllm serve {out}", printed
    )
    found, kept = json.loads(page.read_text()), json.loads((finished / "result.json").read_text())
    (row,) = found["evaluation"]
    (before,) = (each for each in kept["evaluation"] if each["model"] == "practice")
    assert (row["n"], row["accuracy"]) == (before["n"], before["accuracy"])
    assert abs(row["export_gain"]) <= 0.3 and row["export_accuracy"] == pytest.approx(row["accuracy"] + row["export_gain"])
    assert all({"text", "score"} <= item["export"].keys() for items in found["items"].values() for item in items)
    assert found["bytes"] < found["bytes_before"] and found["bytes"] == sum(file.stat().st_size for file in out.iterdir())
    assert {"README.md", "etude.yaml", "config.json", "tokenizer.json"} <= {file.name for file in out.iterdir()}
    assert (out / "README.md").read_text().startswith("---\n") and "vllm serve ." in (out / "README.md").read_text()


def test_force_replaces_an_earlier_export_and_a_failure_leaves_it(finished, tmp_path, monkeypatch):
    out, kind = tmp_path / "out", FORMATS["int8"]
    export(str(finished / "model"), kind, out)
    before = (out / "model.safetensors").read_bytes()
    monkeypatch.setattr("etude.export.int8.save_model", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="the disk is full"):
        export("tiny-random", kind, out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "model.safetensors").read_bytes() == before
    monkeypatch.undo()
    export("tiny-random", kind, out, force=True)
    assert (out / "model.safetensors").read_bytes() != before
