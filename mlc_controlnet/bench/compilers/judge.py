"""Judges the operations of `bench kernels` by the compilers of real GPUs."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tvm

from mlc_controlnet.bench.compilers.amd import compile_for_amd
from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judgement import Judgement, join, judge_kernel
from mlc_controlnet.bench.compilers.kernels import Kernel, compile_kernels
from mlc_controlnet.bench.compilers.spirv import to_spirv
from mlc_controlnet.bench.operations.cases import Case, operation_cases

NORMS = ("group_norm", "layer_norm")  # their arithmetic is no multiply-adds of a product


def judge_operations(only: tuple[str, ...], dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the operations with a part of `only` in their name, or all, on each chip.

    Raises UserError if no operation matches, or if a program is missing.
    """
    cases = operation_cases(only, False, dtype)
    for case in cases.cases[1:]:  # the first is the large matmul
        kernels = compile_kernels(tvm.IRModule({tvm.ir.GlobalVar(case.name): cases.module[case.name]}), dtype)
        yield from judge(kernels, case, dtype, chips)


def judge(kernels: Sequence[Kernel], case: Case, dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the kernels of one operation."""
    multiply_adds = 0 if case.name.startswith(NORMS) else 1e9 * case.work.gflop / 2
    with tempfile.TemporaryDirectory() as folder:
        shaders, rejected = to_spirv({kernel.name: kernel.wgsl for kernel in kernels}, Path(folder))
        for chip in chips:
            compiled, failed = compile_for_amd(shaders, chip)
            judged = [
                judge_kernel(
                    compiled[kernel.name],
                    kernel.name,
                    kernel.launches,
                    kernel.workgroups,
                    kernel.facts.threads,
                    kernel.operand_bytes,
                    chip,
                )
                for kernel in kernels
                if kernel.name in compiled
            ]
            least_bytes, errors = 1e6 * case.work.megabytes, rejected | failed
            yield chip, join(case.name, case.title, multiply_adds, least_bytes, dtype, judged, errors, chip)
