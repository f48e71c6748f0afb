"""A packed run holds what others need and nothing of this machine."""

import gzip
import io
import json
import platform
import shutil
import zipfile
from pathlib import Path

import pytest

from etude.cli import main
from etude.recipes.pack import without_places


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A finished run, with a token and paths where a careless person may have put them."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    facts = json.loads((run / "environment.json").read_text())
    facts |= {"token": "hf_" + "a" * 30, "weights": str(tmp_path / "weights"), "usual": "/usr/x y/lib/z"}
    (run / "environment.json").write_text(json.dumps(facts, indent=1))
    rows = [json.loads(line) for line in gzip.decompress((run / "attempts" / "00001.jsonl.gz").read_bytes()).decode().splitlines()]
    rows[0]["text"] = "see\n/mnt/j\u00f6rg/sets/x\nhf_" + "b" * 30 + "\n/gpfs/me/key file:///workspace/mine/y"
    (run / "attempts" / "00001.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    configuration = run / "configuration.yaml"
    configuration.write_text(configuration.read_text().replace("model: tiny-random", f"model: {tmp_path}/models/mine"))
    return run


def test_a_packed_run_can_be_read_and_tells_nothing_of_this_machine(run, tmp_path, capsys):
    assert main(["report", str(run), "--pack", str(tmp_path / "out.zip")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    wanted = {"report.html", "result.json", "configuration.yaml", "model/README.md", "attempts/00001.jsonl.gz"}
    assert {f"run/{name}" for name in wanted} <= files.keys()
    assert not [name for name in files if "safetensors" in name or "checkpoint" in name or "ledger" in name or "lock" in name]
    everything = b"".join(gzip.decompress(content) if name.endswith(".gz") else content for name, content in files.items()).decode()
    for secret in (str(tmp_path), str(Path.home()) + "/", platform.node(), "hf_aaa", '"command"', "/usr", "rg/sets"):
        assert secret not in everything
    texts = [json.loads(line)["text"] for line in gzip.decompress(files["run/attempts/00001.jsonl.gz"]).decode().splitlines()]
    assert texts[0] == "see\nx\n[secret]\nkey y"
    assert "model: mine" in files["run/configuration.yaml"].decode() and "[secret]" in everything
    assert json.loads(files["run/result.json"]) == json.loads((run / "result.json").read_text())


def test_ordinary_slashes_are_left_alone():
    text = "1/2 of a/b, https://example.org/mnt/page, 3 km/h, x = /5"
    assert without_places(text) == text
    assert without_places('"/mnt/ann/my/x.jsonl:12"') == '"x.jsonl:12"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--pack", "a.zip"], "--pack: none holds no run"),
        (["RUN", "--pack", "a.txt"], "--pack a.txt: name a file that ends in .zip"),
        (["RUN", "RUN", "--pack", "a.zip"], "--pack takes one run"),
    ],
)
def test_wrong_arguments_are_one_sentence(run, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *(str(run) if word == "RUN" else word for word in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_packed_file_is_not_overwritten(run, tmp_path, capsys):
    (tmp_path / "a.zip").write_text("mine")
    assert main(["report", str(run), "--pack", str(tmp_path / "a.zip")]) == 2
    assert "etude did not write it" in capsys.readouterr().err and (tmp_path / "a.zip").read_text() == "mine"
    assert main(["report", str(run), "--pack", str(tmp_path / "a.zip"), "--force"]) == 0
    assert main(["report", str(run), "--pack", str(tmp_path / "a.zip")]) == 2  # a pack is not replaced by chance
    assert "exists already: name another file" in capsys.readouterr().err and zipfile.is_zipfile(tmp_path / "a.zip")


def test_a_pack_goes_into_a_pipe(run, capfdbinary):
    assert main(["report", str(run), "--pack", "-"]) == 0
    with zipfile.ZipFile(io.BytesIO(capfdbinary.readouterr().out)) as archive:
        assert any(name.endswith("/configuration.yaml") for name in archive.namelist())
