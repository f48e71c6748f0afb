"""A packed run holds what others need and nothing of this machine."""

import gzip
import io
import json
import platform
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from etude.cli import main
from etude.export.redaction import Redaction, without_places


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


HOME = "/" + "home"  # apart, since no file here may hold a path of one machine
TOKENS = (
    "hf_" + "a" * 30,
    *(f"{kind}_{'A1b2' * 9}" for kind in ("gho", "ghp", "ghs", "npm", "sk_live", "rk_test", "github_pat")),
    "AIza" + "Sy0-" * 9,
    "AKIA" + "ABCD1234" * 2,
    "ASIA" + "ABCD1234" * 2,
    "glpat-" + "x1Y2" * 5,
    "xoxb-1234567890-abcdefghij",
    "pypi-" + "AgEIcHlwaS5vcmc" * 2,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow/IBAAK+CAQEA\nabc=\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk and no end",
)
PLACES = {
    HOME + "/secretuser/My Project/sets of mine/test.jsonl": "test.jsonl",
    "/etc/secretfolder/key.pem": "key.pem",
    "/run/user/1000/secretfolder": "secretfolder",
    "/nix/store/secretfolder-x/bin/y": "y",
    "/usr/local/secretfolder/x": "x",
    "~secretuser/x/y.txt": "y.txt",
    r"C:\Users\secretuser\My Documents\f.txt": "f.txt",
    "d:/data/secretfolder/f": "f",
    "file:///workspace/secretfolder/y": "y",
}
SETTINGS = {
    "../../secretuser/My Project/test.jsonl": "test.jsonl",
    "secretfolder/My Project/test.jsonl": "test.jsonl",
    "secretfolder/checks.py:judge": "checks.py:judge",
    "runs/secretfolder/model": "model",
    "./secretfolder/model": "model",
    "/secretfolder/x": "x",
    r"D:\secretfolder\f": "f",
    r"\\server\secretfolder\f": "f",
    "~/secretfolder": "secretfolder",
    "org/name": "org/name",
    "https://example.org/v1": "https://example.org/v1",
    "https://ann:pass@example.org/v1": "https://[secret]@example.org/v1",
    "Answer with yes/no.": "Answer with yes/no.",
    "one\n../two/three": "one\n../two/three",
}


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_of_known_services_are_hidden(token):
    assert without_places(f"key={token} and more" if "no end" not in token else token) in ("key=[secret] and more", "[secret]")


def test_secrets_are_hidden_where_a_name_or_an_address_tells_them():
    for text, secret in {
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "wJalr",
        'export OPENAI_API_KEY="abcdef123456"': "abcdef",
        "git clone https://ann:hunter22@example.org/x": "hunter22",
        "Authorization: Bearer abcdefghijklmnop": "abcdefgh",
        "https://example.org/x?a=1&access_token=abcdef": "abcdef",
    }.items():
        assert secret not in without_places(text) and "[secret]" in without_places(text)
    assert Redaction([]).of_setting("abc", "api_key") == "[secret]"
    ordinary = "The secret: of it; password; max_new_tokens: 128, Basic algebra is token by token"
    assert without_places(ordinary) == ordinary


@pytest.mark.parametrize(("path", "left"), PLACES.items())
def test_of_a_path_in_a_text_the_last_part_stays(path, left):
    for text in ("see {}", "see {}, then 1/2", 'open("{}")', "a\n{}\nb/c"):
        assert without_places(text.format(path)) == text.format(left)


@pytest.mark.parametrize(("setting", "left"), SETTINGS.items())
def test_of_a_setting_that_is_a_path_the_last_part_stays_there_and_in_every_text(setting, left):
    redaction = Redaction([{"name": [setting]}])
    assert redaction.of_setting(setting, "name") == left
    assert redaction.of_text(f"made from `{setting}` on a/b") == f"made from `{left}` on a/b"


def test_names_of_users_are_hidden_but_for_common_ones(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "jdoe77")
    redaction = Redaction([{"a": f"{HOME}/secretuser/x", "b": r"C:\Users\otheruser\x", "c": f"{HOME}/ubuntu/x"}])
    assert redaction.of_text("jdoe77, secretuser's, otheruser, ubuntu, mysecretuser") == "[user], [user]'s, [user], ubuntu, mysecretuser"


def test_links_in_a_run_folder_are_not_followed_and_what_is_damaged_is_left_out(run, tmp_path, caplog):
    (tmp_path / "secret").mkdir()
    for name in ("README.md", "00002.jsonl.gz", "base.json"):
        (tmp_path / "secret" / name).write_text('{"is": "private"}')
    (run / "model" / "README.md").unlink()
    (run / "model" / "README.md").symlink_to(tmp_path / "secret" / "README.md")
    shutil.rmtree(run / "evaluation")
    (run / "evaluation").symlink_to(tmp_path / "secret")
    (run / "result.json").write_text("{")
    (run / "model" / "etude.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert main(["report", str(run), "--pack", str(tmp_path / "out.zip")]) == 0
    for sentence in (
        "model/README.md is a link and left out",
        "evaluation/base.json is a link and left out",
        "result.json is not readable",
        "etude.yaml is not readable",
    ):
        assert sentence in caplog.text
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert b"private" not in b"".join(map(archive.read, archive.namelist()))
        assert "run/configuration.yaml" in archive.namelist() and "run/report.html" in archive.namelist()


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1]\nb: *x\n",
        "a: !!timestamp 99999-99-99",
        "!!python/object:os.system x",
        "[",
        "a: " + "[" * 1000,
        "a: " + "9" * 5000,
        "\0",
        "a: é",
    ],
)
def test_a_configuration_that_no_run_wrote_is_left_out(text, tmp_path, caplog, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "configuration.yaml").write_bytes(text.encode("latin-1"))
    assert main(["report", str(run), "--pack", str(tmp_path / "out.zip")]) == 2
    said = capsys.readouterr().err
    assert "nothing of the run in" in said and "configuration.yaml is not readable" in said
    (run / "metrics.jsonl").touch()
    assert main(["report", str(run), "--pack", str(tmp_path / "out.zip")]) == 0
    assert "configuration.yaml is not readable and left out" in caplog.text
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == ["run/metrics.jsonl", "run/report.html"]


def test_long_texts_are_cleaned_in_no_time():
    for text in (
        HOME + "/a" + " a" * 20_000,
        HOME + "/a" * 20_000,
        f"{HOME}/a b" * 9_000,
        "a-" * 30_000,
        "://a" * 20_000,
        "-----BEGIN PRIVATE KEY" * 3_000,
    ):
        before = time.perf_counter()
        without_places(text)
        assert time.perf_counter() - before < 5


def test_ordinary_slashes_are_left_alone():
    text = "1/2 of a/b, https://example.org/mnt/page, 3 km/h, x = /5"
    assert without_places(text) == text
    assert without_places('"/mnt/ann/my/x.jsonl:12"') == '"x.jsonl:12"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "--pack", "a.zip"], "run folder 'none' does not exist"),
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
