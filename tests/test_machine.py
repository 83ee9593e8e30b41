import os
import subprocess
import sys

import pytest

from mlc_controlnet.machine import (
    THREADS_VARIABLES,
    count_cores,
    describe_processor,
    processor_name,
    set_thread_count,
    thread_count,
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A Linux machine of four logical processors, as /sys describes it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)

    def describe(siblings, quota=None):
        for number, text in enumerate(siblings):
            topology = tmp_path / f"devices/system/cpu/cpu{number}/topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(text + "\n")
        if quota is not None:
            (tmp_path / "fs/cgroup").mkdir(parents=True)
            (tmp_path / "fs/cgroup/cpu.max").write_text(quota + "\n")
        return tmp_path

    return describe


def test_two_threads_of_one_core_count_once(machine):
    assert count_cores(machine(["0,2", "1,3", "0,2", "1,3"])) == 2


def test_a_virtual_processor_is_a_core(machine):
    assert count_cores(machine(["0", "1", "2", "3"])) == 4


def test_a_containers_quota_counts(machine):
    assert count_cores(machine(["0", "1", "2", "3"], "250000 100000")) == 2


def test_half_a_processor_is_one_thread(machine):
    assert count_cores(machine(["0", "1", "2", "3"], "50000 100000")) == 1


def test_no_quota_is_no_limit(machine):
    assert count_cores(machine(["0", "1", "2", "3"], "max 100000")) == 4


def test_a_machine_that_says_nothing_is_counted_by_its_processors(machine):
    assert count_cores(machine([])) == 4


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    set_thread_count()
    assert "TVM_NUM_THREADS" not in os.environ


def test_tvm_gets_a_thread_for_each_core_if_the_user_has_set_none(monkeypatch):
    for name in THREADS_VARIABLES:
        monkeypatch.setenv(name, "restored after the test")
        monkeypatch.delenv(name)
    set_thread_count()
    assert int(os.environ["TVM_NUM_THREADS"]) == count_cores()


def test_a_processor_has_the_name_that_linux_gives_it(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 7B13\n\nmodel name\t: AMD EPYC 7B13\n")
    assert processor_name(cpuinfo) == "AMD EPYC 7B13"


def test_a_processor_without_a_name_has_its_architecture(tmp_path):
    assert processor_name(tmp_path / "none")


def test_one_core_is_singular(monkeypatch):
    monkeypatch.setattr("mlc_controlnet.machine.count_cores", lambda: 1)
    assert describe_processor().endswith(", 1 core")


def test_peak_memory_grows_with_what_is_allocated():
    """In a process of its own: one that ran tests before has a peak of gigabytes, which would have to be passed."""
    program = """
from mlc_controlnet.machine import peak_memory_bytes
before = peak_memory_bytes()
held = bytearray(before + 2**25)
held[::4096] = b"x" * len(held[::4096])
print(peak_memory_bytes() - before)
"""
    grown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(grown) > 2**25


def test_the_threads_in_use_are_those_that_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlc_controlnet.machine.count_cores", lambda: 6)
    for chosen, threads in {"3": 3, "0": 6, "many": 6, "": 6}.items():
        monkeypatch.setenv("TVM_NUM_THREADS", chosen)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert thread_count() == threads
    monkeypatch.delenv("TVM_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert thread_count() == 2
