import os
import platform
import subprocess
import sys

import pytest

from mlc_controlnet.machine import (
    BINDING_VARIABLE,
    THREADS_VARIABLES,
    count_cores,
    describe_processor,
    processor_name,
    set_up_threads,
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


@pytest.fixture
def nothing_set(monkeypatch):
    """An environment without settings of threads, which is restored after the test."""
    for name in (*THREADS_VARIABLES, BINDING_VARIABLE):
        monkeypatch.setenv(name, "restored after the test")
        monkeypatch.delenv(name)
    return monkeypatch


def test_what_the_user_has_set_stays(nothing_set):
    nothing_set.setenv("OMP_NUM_THREADS", "3")
    nothing_set.setenv(BINDING_VARIABLE, "1")
    set_up_threads()
    assert "TVM_NUM_THREADS" not in os.environ
    assert os.environ[BINDING_VARIABLE] == "1"


def test_tvm_gets_a_thread_for_each_core_if_the_user_has_set_none(nothing_set):
    set_up_threads()
    assert int(os.environ["TVM_NUM_THREADS"]) == count_cores()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux tells where threads may run")
def test_every_thread_of_tvm_may_run_where_the_process_may(nothing_set):
    """In a process of its own: only one that has drawn nothing yet has no threads of TVM."""
    program = """
import os
import platform
allowed = {max(os.sched_getaffinity(0))}
os.sched_setaffinity(0, allowed)
from mlc_controlnet.machine import set_up_threads
set_up_threads()
import tvm
assert tvm.get_global_func("runtime.NumThreads")() == 2  # this starts them
print([os.sched_getaffinity(int(thread)) == allowed for thread in os.listdir("/proc/self/task")])
"""
    nothing_set.setenv("TVM_NUM_THREADS", "2")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "False" not in run.stdout
    assert run.stdout.count("True") >= 2


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_freed_memory_goes_back_though_small_objects_lie_between() -> None:
    """In a process of its own: malloc keeps what it was told."""
    program = """
import ctypes, re
from mlc_controlnet.machine import give_back_freed_memory
{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))  # from now on, malloc's heap has room for tensors of this size
tensors = []
for _ in range(40):
    tensors.append(libc.malloc(2 << 20))
    ctypes.memset(tensors[-1], 1, 2 << 20)
    libc.malloc(100_000)
for tensor in tensors:
    libc.free(tensor)
print(re.search(r"^VmRSS:\\s+(\\d+) kB$", open("/proc/self/status").read(), re.MULTILINE)[1])
"""

    def kilobytes_after(call: str) -> int:
        text = program.format(call=call)
        return int(subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True).stdout)

    assert kilobytes_after("") - kilobytes_after("give_back_freed_memory()") > 60_000
