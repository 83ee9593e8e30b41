"""How many threads TVM should use on a processor.

TVM takes half of the logical processors on x86, on the assumption that each core runs two threads. In a virtual
machine, where a logical processor often is a core, that leaves half of the machine idle; in a container with a quota it
starts threads that spin for time they do not get.
"""

import os
from pathlib import Path

THREADS_VARIABLES = ("TVM_NUM_THREADS", "OMP_NUM_THREADS")  # what TVM reads, in this order


def set_thread_count() -> None:
    """Tell TVM, before its thread pool starts, unless the user has told it already."""
    if not any(name in os.environ for name in THREADS_VARIABLES):
        os.environ[THREADS_VARIABLES[0]] = str(count_cores())


def count_cores(system: Path = Path("/sys")) -> int:
    """Physical cores that this process may use, within its container's quota; 1 at least.

    `system` is where Linux describes the machine; elsewhere the logical processors are counted.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    topology = system / "devices/system/cpu"
    cores = {_read(topology / f"cpu{number}/topology/thread_siblings_list", str(number)) for number in allowed}
    quota, period = (_read(system / "fs/cgroup/cpu.max", "max 100000").split() + ["100000"])[:2]
    granted = len(cores) if quota == "max" else int(quota) // int(period)
    return max(1, min(len(cores), granted))


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text().strip() or otherwise
    except OSError:
        return otherwise
