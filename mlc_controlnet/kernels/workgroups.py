"""The limits that every GPU grants a kernel, and the memory that the threads of a kernel work in."""

from typing import Any

from tvm.script import tirx as T

WORKGROUP_BYTES = 16 * 1024  # the least workgroup memory that any WebGPU device has
# A GPU with fewer workgroups than this to run leaves most of its cores idle: then smaller tiles are better.
ENOUGH_WORKGROUPS = 128


def in_workgroup(*shape: int, dtype: str = "float32") -> Any:
    """Allocate memory that the threads of a workgroup share."""
    return T.sblock_alloc_buffer(shape, dtype, scope="shared")


def in_registers(count: int, dtype: str = "float32") -> Any:
    """Allocate so many values for each thread."""
    return T.sblock_alloc_buffer((count,), dtype, scope="local")
