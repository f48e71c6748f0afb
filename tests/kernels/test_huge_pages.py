import mmap
from pathlib import Path

import pytest
import torch

from etude.kernels import huge_pages
from etude.kernels.huge_pages import PAGE_BYTES, Chunks
from etude.kernels.tables import KVStore

SMAPS = Path("/proc/self/smaps")
KNOWN = Path("/sys/kernel/mm/transparent_hugepage").exists() and hasattr(mmap, "MADV_HUGEPAGE") and "VmFlags" in SMAPS.read_text()
linux = pytest.mark.skipif(not KNOWN, reason="the system knows no huge pages")


def flags_at(address):
    """What the system was told of the memory there."""
    inside = False
    for line in SMAPS.read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= address < end
        elif inside and first == "VmFlags:":
            return rest.split()
    raise AssertionError("nothing is there")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_large_tensors_are_zeros_that_take_what_they_hold(dtype):
    found = huge_pages.zeros(3, 5, 1 << 18, dtype=dtype)
    assert found.shape == (3, 5, 1 << 18) and found.dtype == dtype and not found.any()
    assert found.untyped_storage().nbytes() == found.nbytes, "memory is measured by what storages hold"
    found[2, 4, -1] = 1
    assert found.sum() == 1


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@linux
def test_a_store_of_keys_takes_memory_as_its_positions_are_used():
    before = resident_bytes()
    store = KVStore.of(32, 4, 8192, 64, torch.float32)
    assert store.keys_RKTD.nbytes == 1 << 28 and resident_bytes() - before < 1 << 26
    store.keys_RKTD[3, 1, 5] = 1.0
    assert store.keys_RKTD[3, 1, :8].sum() == 64 and resident_bytes() - before < 1 << 26


@linux
def test_large_tensors_begin_at_a_page_and_ask_for_huge_ones():
    found = huge_pages.zeros(PAGE_BYTES + 5, dtype=torch.uint8)
    assert found.data_ptr() % PAGE_BYTES == 0
    assert "hg" in flags_at(found.data_ptr())


@linux
def test_memory_goes_back_when_the_tensor_is_gone():
    found = huge_pages.zeros(64 * PAGE_BYTES, dtype=torch.uint8)
    address, part = found.data_ptr(), found[PAGE_BYTES : 2 * PAGE_BYTES]
    del found
    part.fill_(7)
    assert "hg" in flags_at(address), "a part of it is in use"
    del part
    try:
        flags = flags_at(address)
    except AssertionError:
        flags = []
    assert "hg" not in flags


@linux
def test_no_more_memory_is_taken_than_tensors_hold():
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    before = resident_bytes()
    found = [huge_pages.zeros(PAGE_BYTES * 5 // 4, dtype=torch.uint8).fill_(1) for _ in range(40)]
    assert resident_bytes() - before < 1.1 * sum(each.nbytes for each in found)


def test_small_tensors_and_those_of_other_devices_are_as_always():
    assert huge_pages.zeros(7, dtype=torch.float32).equal(torch.zeros(7))
    assert huge_pages.zeros(PAGE_BYTES, dtype=torch.float32, device=torch.device("meta")).is_meta


def test_tensors_of_a_chunk_lie_beside_each_other_and_not_upon():
    chunks = Chunks(chunk_bytes=4096)
    found = [chunks.zeros(3, 11, dtype=torch.float32) for _ in range(40)]
    for number, each in enumerate(found):
        assert not each.any() and each.data_ptr() % 64 == 0
        each.fill_(number)
    assert [each.unique().tolist() for each in found] == [[number] for number in range(40)]
    assert found[1].data_ptr() - found[0].data_ptr() == 192, "132 bytes, up to a line of memory"
    assert len({each.untyped_storage().data_ptr() for each in found}) == 2, "forty times 192 bytes are in two chunks"
    large = chunks.zeros(4096, dtype=torch.float32)
    assert large.untyped_storage().nbytes() == 16_384, "what is larger than a chunk has memory of its own"
    assert large.untyped_storage().data_ptr() not in {each.untyped_storage().data_ptr() for each in found}
