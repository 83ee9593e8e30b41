"""Describe the machine that this process runs on: its processor, its cores and the memory used.

TVM starts a thread for half of the logical processors on x86: it assumes that each core runs two threads. In a virtual
machine a logical processor often is a core, and half of the machine stays idle. In a container with a quota, TVM starts
threads that spin for time they do not get. `set_up_threads` gives TVM the right number.

TVM also binds each thread but the first to a processor of its own, counted from the second one of the machine, and the
first to as many from the beginning. That ignores which processors `taskset` gave this process, and two processes bind
theirs to the same ones. A thread that is bound waits where another program is busy, or where the system has put the
first thread, though a processor is idle beside it. `set_up_threads` leaves the choice to the system, as OpenMP does.
"""

import ctypes
import os
import platform
import re
import resource
import sys
from pathlib import Path

THREADS_VARIABLES = ("TVM_NUM_THREADS", "OMP_NUM_THREADS")  # TVM reads them in this order
BINDING_VARIABLE = "TVM_BIND_THREADS"  # TVM binds threads unless it is there and not 1
_M_MMAP_THRESHOLD, _LARGEST_OF_THE_HEAP = -3, 2**20  # malloc.h; bytes


def set_up_threads() -> None:
    """Give TVM `count_cores()` threads and let the system place them, unless the user has set one or the other.

    Call this before TVM starts its thread pool, which happens at the first call of a compiled function.
    """
    if not any(name in os.environ for name in THREADS_VARIABLES):
        os.environ[THREADS_VARIABLES[0]] = str(count_cores())
    os.environ.setdefault(BINDING_VARIABLE, "0")


def give_back_freed_memory() -> None:
    """Tell glibc's malloc to give freed tensors back to the system at once. With another C library, do nothing.

    By default it keeps those below 32 MiB in its heap, where small objects that live longer part the free memory into
    pieces: after gradients of Stable Diffusion XL's layers, 9.7 GB were held for nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_THE_HEAP)


def thread_count() -> int:
    """Return how many threads TVM computes with: what the user has set, or `count_cores()`."""
    chosen = (os.environ.get(name, "") for name in THREADS_VARIABLES)
    return next((int(count) for count in chosen if count.isdecimal() and int(count)), count_cores())


def count_cores(system: Path = Path("/sys")) -> int:
    """Return how many physical cores this process may use: at least 1, and no more than its container's quota.

    `system` is the folder in which Linux describes the machine. On other systems, logical processors are counted.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    topology = system / "devices/system/cpu"
    cores = {_read(topology / f"cpu{number}/topology/thread_siblings_list", str(number)) for number in allowed}
    quota, period = (_read(system / "fs/cgroup/cpu.max", "max 100000").split() + ["100000"])[:2]
    granted = len(cores) if quota == "max" else int(quota) // int(period)
    return max(1, min(len(cores), granted))


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name that the system gives its processor, for example `AMD EPYC 7B13`."""
    for line in _read(cpuinfo, "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_processor() -> str:
    """Return the processor's name and the cores that this process may use: `AMD EPYC 7B13, 2 cores`."""
    return name_with_cores(processor_name(), count_cores())


def name_with_cores(name: str, count: int) -> str:
    """Return a processor's name with the number of cores in use."""
    return f"{name}, {count} {'core' if count == 1 else 'cores'}"


def peak_memory_bytes() -> int:
    """Return the largest resident set that this process has had so far.

    Linux's rusage starts with that of the process that started this one, so there /proc is read.
    """
    if peak := re.search(r"^VmHWM:\s+(\d+) kB$", _read(Path("/proc/self/status"), ""), re.MULTILINE):
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or otherwise
    except OSError:
        return otherwise
