"""Judges operations by Intel's compiler: registers, spills and SIMD width. No time is predicted from them."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tvm

from mlc_controlnet.bench.compilers.intel import DEVICES, compile_for_intel
from mlc_controlnet.bench.compilers.kernels import write_kernels
from mlc_controlnet.bench.operations.cases import operation_cases


def intel_lines(only: tuple[str, ...], dtype: str, devices: Sequence[str]) -> Iterator[str]:
    """Yield lines about the kernels of the operations with a part of `only` in their name, or all.

    devices: keys of intel.DEVICES.

    Raises UserError if no operation matches, or ocloc is missing.
    """
    cases = operation_cases(only, False, dtype)
    for case in cases.cases[1:]:  # the first is the large matmul
        source, _ = write_kernels(tvm.IRModule({tvm.ir.GlobalVar(case.name): cases.module[case.name]}), "opencl")
        for device in devices:
            yield f"{case.name} on {DEVICES[device]}:"
            with tempfile.TemporaryDirectory() as folder:
                try:
                    kernels = compile_for_intel(source, device, Path(folder))
                except ValueError as error:
                    yield f"  rejected: {error}"
                    continue
            for kernel in kernels:
                yield (
                    f"  {kernel.name.removesuffix('_kernel'):42} SIMD {kernel.simd:2}, {kernel.registers} registers, "
                    f"{kernel.spilled_bytes} bytes spilled, {kernel.workgroup_bytes} of workgroup memory"
                )
