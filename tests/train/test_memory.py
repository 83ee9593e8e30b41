"""What a step frees stays with the process, on Linux with glibc."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from mlc_controlnet.train.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(20):  # an aligned block needs a little more than one of its size leaves behind
    torch.ones(10 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(10 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the system's malloc is another one")
def test_kept_memory_costs_no_page_faults() -> None:
    """Three times 40 MiB in pages of 4 KiB, more than malloc learns to keep. In a process of its own: it stays set."""
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True).stdout)
        for mode in ("usual", "kept")
    }
    assert faults["kept"] < 100 < faults["usual"]
