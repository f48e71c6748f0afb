"""A changed file and changed data are seen."""

import shutil

import pytest

from etude.fingerprints import checksums_of, difference, fingerprint_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kept").mkdir()
    for name, content in (("model.safetensors", b"weights"), ("config.json", b"{}")):
        (tmp_path / "kept" / name).write_bytes(content)
    return tmp_path / "kept"


def test_checksums_detect_a_changed_bit(folder):
    checksums = checksums_of(folder)
    (folder / ".DS_Store").write_bytes(b"somebody else's")
    assert difference(folder, checksums) is None
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert difference(folder, checksums) == "model.safetensors is not what was written"
    (folder / "model.safetensors").unlink()
    assert difference(folder, checksums) == "model.safetensors is missing"


def test_weights_that_came_later_do_not_belong_to_a_folder(folder):
    checksums = checksums_of(folder)
    shutil.copy(folder / "model.safetensors", folder / "model-2.safetensors")
    assert difference(folder, checksums) == "model-2.safetensors does not belong to it"


def test_values_that_are_no_json_have_one_fingerprint_in_every_process():
    assert fingerprint_of([{"a": object()}]) == fingerprint_of([{"a": object()}]) != fingerprint_of([{"a": 1}])
