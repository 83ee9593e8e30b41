"""What a figure must be read with."""

import platform
from pathlib import Path


def processor_name() -> str:
    """`AMD EPYC 7B13`, as the system has it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
