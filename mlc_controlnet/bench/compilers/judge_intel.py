"""Judges operations by Intel's compiler: registers, spills and SIMD width. No time is predicted from them."""

import datetime
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import tvm

from mlc_controlnet import __version__
from mlc_controlnet.bench.compilers.figures import IntelFigures
from mlc_controlnet.bench.compilers.intel import DEVICES, IntelJudgement, compile_for_intel, compiler_version
from mlc_controlnet.bench.compilers.kernels import write_kernels
from mlc_controlnet.bench.operations.cases import Case, operation_cases

Show = Callable[[str, IntelJudgement], None]  # takes a device and a judgement as soon as it is known


def measure_on_intel(
    only: tuple[str, ...], dtypes: Sequence[str], devices: Sequence[str], command: str, show: Show
) -> list[IntelFigures]:
    """Judge the operations with a part of `only` in their name, or all, on every device in every dtype.

    devices: keys of intel.DEVICES. command: the command line that produces the same figures again.

    Raises UserError if no operation matches, or ocloc is missing.
    """
    versions = {
        "mlc-controlnet": __version__,
        "apache-tvm": version("apache-tvm"),
        "intel-opencl-icd": compiler_version(),
    }
    today = datetime.date.today().isoformat()
    figures = []
    for dtype in dtypes:
        rows: dict[str, list[IntelJudgement]] = {device: [] for device in devices}
        cases = operation_cases(only, False, dtype)
        for case in cases.cases[1:]:  # the first is the large matmul
            module = tvm.IRModule({tvm.ir.GlobalVar(case.name): cases.module[case.name]})
            source, _ = write_kernels(module, "opencl")
            for device in devices:
                judgement = _judge(case, source, device)
                rows[device].append(judgement)
                show(device, judgement)
        figures += [
            IntelFigures(device, dtype, command, today, versions, tuple(judged)) for device, judged in rows.items()
        ]
    return figures


def intel_lines(device: str, judgement: IntelJudgement) -> Iterator[str]:
    """Yield the lines of one operation."""
    yield f"{judgement.name} on {DEVICES[device]}:"
    if judgement.error:
        yield f"  rejected: {judgement.error}"
    for kernel in judgement.kernels:
        yield (
            f"  {kernel.name.removesuffix('_kernel'):42} SIMD {kernel.simd:2}, {kernel.registers} registers, "
            f"{kernel.spilled_bytes} bytes spilled, {kernel.workgroup_bytes} of workgroup memory"
        )


def _judge(case: Case, source: str, device: str) -> IntelJudgement:
    with tempfile.TemporaryDirectory() as folder:
        try:
            kernels = compile_for_intel(source, device, Path(folder))
        except ValueError as error:
            return IntelJudgement(case.name, case.title, (), str(error))
    return IntelJudgement(case.name, case.title, tuple(kernels), "")
