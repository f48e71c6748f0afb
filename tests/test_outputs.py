"""What `--json`, `--out`, `--page` and `--pack` write to, and what they leave alone."""

import json
import os
import stat
import threading
import zipfile

import pytest

from etude.errors import UserError
from etude.evaluation.report.answers_page import write_answers_page
from etude.outputs import PAGE_MARK, check_output, is_pack, is_page, is_result, is_standard_output, write_output

RESULT = json.dumps({"model": "tiny-random", "weights": "random", "evaluation": []})
ANSWERS = json.dumps([{"prompt": "a", "completions": ["b"], "finish": ["stop"]}])


def read_in_background(path):
    """What comes out of a pipe, once somebody writes into it."""
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader, read


def test_a_pipe_with_a_name_is_written_into_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_output("--json", str(pipe), is_result)
    reader, read = read_in_background(pipe)
    write_output(str(pipe), "a\n")
    reader.join(timeout=5)
    assert read == [b"a\n"] and stat.S_ISFIFO(pipe.stat().st_mode) and sorted(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_written_into_and_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.open("wb").close()
    except PermissionError:
        pytest.skip("no devices can be made here")
    check_output("--json", str(device), is_result)
    write_output(str(device), RESULT)
    assert stat.S_ISCHR(device.stat().st_mode) and sorted(tmp_path.iterdir()) == [device]


def test_null_and_an_open_file_are_written_into(tmp_path):
    check_output("--json", "/dev/null", is_result)
    write_output("/dev/null", RESULT)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    end, start = os.pipe()
    check_output("--json", f"/dev/fd/{start}", is_result)  # which `>(command)` is
    write_output(f"/dev/fd/{start}", "a\n")
    os.close(start)
    assert os.read(end, 10) == b"a\n"
    os.close(end)


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_is_written_after_earlier_prints(name, capfd):
    print("first", flush=False)
    check_output("--json", name, is_result)
    write_output(name, "second\n")
    assert is_standard_output(name) and capfd.readouterr().out == "first\nsecond\n"


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real.json").write_text(RESULT)
    (tmp_path / "real.json").chmod(0o600)
    (tmp_path / "link.json").symlink_to("real.json")
    check_output("--json", str(tmp_path / "link.json"), is_result)
    write_output(tmp_path / "link.json", ANSWERS)
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real.json").read_text() == ANSWERS
    assert stat.S_IMODE((tmp_path / "real.json").stat().st_mode) == 0o600 and len(list(tmp_path.iterdir())) == 2


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path):
    (tmp_path / "link.json").symlink_to("new.json")
    check_output("--json", str(tmp_path / "link.json"), is_result)
    write_output(tmp_path / "link.json", ANSWERS)
    assert (tmp_path / "link.json").is_symlink() and (tmp_path / "new.json").read_text() == ANSWERS


@pytest.mark.parametrize("content", ["mine", "{", '{"a": 1}', '{"weights": 1}', '[{"prompt": "a"}]', "[1]", "[" * 100_000, "\x00\xff"])
def test_a_file_that_etude_did_not_write_is_replaced_by_force_alone(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content, encoding="latin1")
    with pytest.raises(UserError, match=r"mine\.json: exists already, and etude did not write it: name another file, or .* --force$"):
        check_output("--json", str(path), is_result)
    check_output("--json", str(path), is_result, force=True)
    assert path.read_text(encoding="latin1") == content


@pytest.mark.parametrize("content", [RESULT, ANSWERS, "", json.dumps({"recipe": "tiny", "seed": 0, "weights": "w", "evaluation": []})])
def test_a_result_and_an_empty_file_are_replaced(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(content)
    check_output("--json", str(path), is_result)


def test_pages_and_packs_are_known_by_their_content(tmp_path):
    write_answers_page([], "majority", "model", tmp_path / "page.html")
    (tmp_path / "other.html").write_text("<!doctype html><title>mine</title>")
    assert is_page(tmp_path / "page.html") and not is_page(tmp_path / "other.html") and PAGE_MARK in (tmp_path / "page.html").read_text()
    for name, inside in {"run.zip": "run/configuration.yaml", "other.zip": "photo.jpeg"}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inside, "a")
    assert is_pack(tmp_path / "run.zip") and not is_pack(tmp_path / "other.zip")
    with pytest.raises(UserError, match="etude did not write it"):
        check_output("--pack", str(tmp_path / "page.html"), is_pack)


def test_a_folder_that_is_missing_is_named_and_not_made(tmp_path):
    for name in ("absent/x.json", "absent/deeper/x.json"):
        with pytest.raises(UserError, match=rf"^--json .*{name}: there is no folder {(tmp_path / name).parent}: make it first"):
            check_output("--json", str(tmp_path / name), is_result)
    (tmp_path / "link.json").symlink_to("absent/x.json")
    with pytest.raises(UserError, match="there is no folder"):
        check_output("--json", str(tmp_path / "link.json"), is_result)
    assert not (tmp_path / "absent").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_is_refused_before_the_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write there"):
        check_output("--json", str(tmp_path / "x.json"), is_result)
