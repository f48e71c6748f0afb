"""What is chosen by the machine is chosen by what it has: the same at every start."""

import re
from pathlib import Path

import pytest
import torch

import etude
from etude.device import processor as device
from etude.device.machine import Machine, resolve_device

X86 = "processor\t: 0\nmodel name\t: Some Processor\nflags\t\t: fpu avx2 avx512f {}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.fixture
def on(monkeypatch, tmp_path):
    """`on(cpuinfo)` is the processor from then on."""

    def become(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(device, "Path", lambda name: tmp_path / Path(name).name)
        device.processor_flags.cache_clear()

    yield become
    device.processor_flags.cache_clear()


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (X86.format("avx512_bf16"), True),
        (X86.format("amx_bf16 amx_tile"), True),
        (X86.format("avx512_vnni"), False),
        (ARM.format("i8mm bf16"), True),
        (ARM.format("i8mm"), False),
        ("nonsense\n", None),
    ],
)
def test_bfloat16_is_chosen_by_the_instructions_of_the_processor(on, text, has):
    on(text)
    if has is None:  # a system that does not say it: as torch finds
        has = any(torch.cpu.get_capabilities().get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    assert device.has_bfloat16() is has
    assert resolve_device(Machine(device="cpu")).precision == ("bfloat16" if has else "float32")


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_is_chosen_by_the_capability_of_a_gpu(monkeypatch, capability, has):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.has_bfloat16("cuda:0") is has


def test_no_clock_and_no_load_decide_what_is_computed(monkeypatch):
    def look(*_):
        raise AssertionError("a clock was asked")

    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(f"time.{name}", look)
    assert resolve_device(Machine(device="cpu")).precision in ("float32", "bfloat16")


MOMENT = re.compile(r"MemAvailable|MemFree|mem_get_info|virtual_memory|getloadavg|cpu_count|sched_getaffinity|cpu_percent")
"""What a system says of the moment, or of the process's share of the machine."""


def test_nothing_asks_how_much_is_free_or_busy_at_the_moment():
    sources = [path for path in Path(etude.__file__).parent.rglob("*") if path.suffix in (".py", ".cpp", ".h")]
    sources.remove(Path(etude.__file__).parent / "tasks/code_confinement.py")  # it lists system calls that a program may make
    asking = [str(path) for path in sources if MOMENT.search(path.read_text())]
    assert asking == []


def test_the_memory_that_is_built_in_is_told_whatever_is_free(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    5 kB\n")
    monkeypatch.setattr(device, "Path", lambda name: tmp_path / Path(name).name)
    assert device.memory_bytes() == 16000 * 1024
    (tmp_path / "meminfo").unlink()
    assert device.memory_bytes() is None
