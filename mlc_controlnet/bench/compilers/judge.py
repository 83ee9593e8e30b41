"""Judges operations and whole calls of a model by the makers' compilers, and the peer's shaders in the same way."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm

from mlc_controlnet.bench.compilers.amd import compile_for_amd
from mlc_controlnet.bench.compilers.chips import AMD, NVIDIA, Chip
from mlc_controlnet.bench.compilers.code import Code
from mlc_controlnet.bench.compilers.judgement import Judgement, judge_kernel
from mlc_controlnet.bench.compilers.kernels import Kernel, compile_kernels, write_kernels
from mlc_controlnet.bench.compilers.nvidia import compile_for_nvidia
from mlc_controlnet.bench.compilers.peer import PeerLaunch
from mlc_controlnet.bench.compilers.roofline import limit_microseconds
from mlc_controlnet.bench.compilers.spirv import to_spirv
from mlc_controlnet.bench.operations.cases import Case, operation_cases
from mlc_controlnet.compile.library import OverLimits

NORMS = ("group_norm", "layer_norm")  # their arithmetic is no multiply-adds of a product


@dataclass(frozen=True)
class Launched:
    """A shader and how it is launched.

    Attributes:
        launches: how often in a call.
        uniforms: words of its uniform buffer, where trip counts depend on them.
    """

    wgsl: str
    launches: int
    workgroups: int
    operand_bytes: int
    uniforms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A computation to judge.

    Attributes:
        multiply_adds: what it needs; 0 for a norm.
        least_bytes: what every schedule must move.
    """

    name: str
    title: str
    multiply_adds: float
    least_bytes: float

    @staticmethod
    def of(case: Case) -> "Subject":
        """Describe an operation of `bench kernels`."""
        multiply_adds = 0.0 if case.name.startswith(NORMS) else 1e9 * case.work.gflop / 2
        return Subject(case.name, case.title, multiply_adds, 1e6 * case.work.megabytes)


def judge_operations(only: tuple[str, ...], dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the operations with a part of `only` in their name, or all, on each chip.

    Raises UserError if no operation matches, or if a program is missing.
    """
    cases = operation_cases(only, False, dtype)
    for case in cases.cases[1:]:  # the first is the large matmul
        module = tvm.IRModule({tvm.ir.GlobalVar(case.name): cases.module[case.name]})
        yield from judge_module(Subject.of(case), module, dtype, chips)


def judge_module(
    subject: Subject, module: tvm.IRModule, dtype: str, chips: Sequence[Chip]
) -> Iterator[tuple[Chip, Judgement]]:
    """Judge our kernels of a module after phase clean: WGSL for AMD's compiler, CUDA C for NVIDIA's."""
    amd, nvidia = ([chip for chip in chips if chip.maker == maker] for maker in (AMD, NVIDIA))
    if amd:
        try:
            yield from judge(subject, launched(compile_kernels(module, dtype)), dtype, amd)
        except OverLimits as error:  # no WebGPU device takes it: the other rows are still made
            yield from ((chip, _join(subject, {}, {subject.name: str(error)}, dtype, chip)) for chip in amd)
    if nvidia:
        source, kernels = write_kernels(module, "cuda")
        for chip in nvidia:
            yield chip, _judge_source(subject, source, kernels, dtype, chip)


def _judge_source(subject: Subject, source: str, kernels: Sequence[Kernel], dtype: str, chip: Chip) -> Judgement:
    threads = {kernel.name: kernel.facts.threads for kernel in kernels}
    with tempfile.TemporaryDirectory() as folder:
        codes, errors = compile_for_nvidia(source, threads, chip.architecture, Path(folder))
    shaders = launched(kernels)
    return _join(
        subject, {name: (code, shaders[name], threads[name]) for name, code in codes.items()}, errors, dtype, chip
    )


def launched(kernels: Sequence[Kernel]) -> dict[str, Launched]:
    """Describe our kernels, by name."""
    return {
        kernel.name: Launched(kernel.wgsl, kernel.launches, kernel.workgroups, kernel.operand_bytes)
        for kernel in kernels
    }


def launched_by_peer(launches: Iterable[PeerLaunch]) -> dict[str, Launched]:
    """Describe the peer's launches, in order; equal ones once. A name is the shader's, and the number of its first."""
    shaders = {}
    for number, (launch, count) in enumerate(Counter(launches).items(), 1):
        x, y, z = launch.workgroups
        name = f"{re.sub(r'[^A-Za-z0-9]', '_', launch.program)}_{number}"
        shaders[name] = Launched(launch.wgsl, count, x * y * z, launch.operand_bytes, launch.uniforms)
    return shaders


def judge(
    subject: Subject,
    shaders: Mapping[str, Launched],
    dtype: str,
    chips: Sequence[Chip],
    adapter: Mapping[str, str] | None = None,
) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the shaders of one computation on each chip. A shader that a compiler rejects becomes an error.

    adapter: as to_spirv has it.
    """
    uniforms = {name: shader.uniforms for name, shader in shaders.items()}
    with tempfile.TemporaryDirectory() as folder:
        compiled, rejected = to_spirv({name: shader.wgsl for name, shader in shaders.items()}, Path(folder), adapter)
        for chip in chips:
            codes, failed = compile_for_amd(compiled, chip, uniforms)
            found = {name: (code, shaders[name], compiled[name].threads) for name, code in codes.items()}
            yield chip, _join(subject, found, rejected | failed, dtype, chip)


def _join(
    subject: Subject,
    found: Mapping[str, tuple[Code, Launched, int]],
    errors: dict[str, str],
    dtype: str,
    chip: Chip,
) -> Judgement:
    """Predict every kernel, from its code, its launches and the threads of a workgroup."""
    kernels = [
        judge_kernel(code, name, shader.launches, shader.workgroups, threads, shader.operand_bytes, chip)
        for name, (code, shader, threads) in found.items()
    ]
    kernels.sort(key=lambda kernel: -kernel.total_microseconds)
    limit = limit_microseconds(subject.multiply_adds, subject.least_bytes, dtype, chip)
    return Judgement(subject.name, subject.title, subject.multiply_adds, limit, tuple(kernels), errors)
