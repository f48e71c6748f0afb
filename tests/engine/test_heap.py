"""What is freed after a batch goes back to the system, instead of leaving holes in a heap that grows."""

import os
import platform
import subprocess
import sys

import pytest

TENSORS_OF_A_BATCH = """
import resource, sys, torch

def held_mib():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * resource.getpagesize() >> 20

if sys.argv[1] == "engine":
    from etude.engine.transformers import TransformersEngine
    from etude.tiny import tiny_model, tiny_tokenizer
    engine = TransformersEngine(tiny_model(), tiny_tokenizer())
elif sys.argv[1] == "thresholds":
    from etude.engine.heap import pin_malloc_thresholds
    pin_malloc_thresholds()
first = torch.zeros(28 << 20, dtype=torch.uint8)
del first  # glibc's own threshold moves by it
before, tensors, between = held_mib(), [], []
for _ in range(16):
    tensors.append(torch.zeros(16 << 20, dtype=torch.uint8))
    between.append(torch.zeros(100 << 10, dtype=torch.uint8))  # something small that stays
del tensors
print(held_mib() - before)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the thresholds are glibc's")


def left_mib(behind: str, **environment: str) -> int:
    """What a process still has of 256 MiB that it has freed, behind an `engine`, the `thresholds` alone, or `nothing`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", TENSORS_OF_A_BATCH, behind]
    return int(subprocess.run(command, env=own | environment, capture_output=True, text=True, check=True).stdout)


def test_with_an_engine_what_a_batch_has_freed_goes_back_to_the_system_and_without_it_stays() -> None:
    assert left_mib("engine") < 32
    assert left_mib("nothing") > 128


@pytest.mark.parametrize("own", [{"MALLOC_MMAP_THRESHOLD_": "33554432"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432"}])
def test_a_threshold_of_the_users_own_stays(own: dict[str, str]) -> None:
    assert left_mib("thresholds", **own) > 128
