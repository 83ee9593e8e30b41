"""What a compiler said about a computation's kernels on one chip, and the time predicted from it."""

from dataclasses import dataclass

from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.code import Code
from mlc_controlnet.bench.compilers.roofline import predict
from mlc_controlnet.kernels.integers import ceil_div


@dataclass(frozen=True)
class Intensity:
    """Multiply-adds of a part of a kernel, over its vector instructions and over its loads of workgroup memory."""

    a_vector_instruction: float
    a_workgroup_load: float

    @staticmethod
    def of(cost: Cost) -> "Intensity":
        """Divide what a wave executes."""
        loads, vectors = (max(number, 1.0) for number in (cost.workgroup_loads, cost.vector))
        return Intensity(cost.multiply_adds / vectors, cost.multiply_adds / loads)


@dataclass(frozen=True)
class KernelJudgement:
    """One kernel.

    Attributes:
        launches: in a call of the computation.
        workgroups, threads: of a launch, of a workgroup.
        wave: threads of a wave.
        registers, spilled, workgroup_bytes, occupancy: as in Code.
        hot, step, whole: the innermost loop with the most multiply-adds; the outermost one, which is a whole step of k
            with its loads; everything.
        cost: what a wave executes.
        multiply_adds: of all threads of a launch, idle lanes not counted.
        microseconds: predicted for a launch, by resource; the longest counts.
        bound: what bounds it.
    """

    name: str
    launches: int
    workgroups: int
    threads: int
    wave: int
    registers: int
    spilled: int
    workgroup_bytes: int
    occupancy: int
    hot: Intensity
    step: Intensity
    whole: Intensity
    cost: Cost
    multiply_adds: float
    microseconds: dict[str, float]
    bound: str

    @property
    def total_microseconds(self) -> float:
        """Predicted for all launches of a call."""
        return self.launches * max(self.microseconds.values())


@dataclass(frozen=True)
class Judgement:
    """One computation on one chip.

    Attributes:
        multiply_adds: what the computation needs; 0 for a norm.
        limit_microseconds: the shortest time of any schedule.
        kernels: the longest first.
        errors: kernel -> why the compiler rejects it.
    """

    name: str
    title: str
    multiply_adds: float
    limit_microseconds: float
    kernels: tuple[KernelJudgement, ...]
    errors: dict[str, str]

    @property
    def microseconds(self) -> float:
        """Predicted for a call."""
        return sum(kernel.total_microseconds for kernel in self.kernels)

    @property
    def share_of_limit(self) -> float:
        """Share of the chip's published rates that is reached; 0 without a kernel."""
        return self.limit_microseconds / self.microseconds if self.kernels else 0.0


def judge_kernel(
    code: Code, name: str, launches: int, workgroups: int, threads: int, operand_bytes: int, chip: Chip
) -> KernelJudgement:
    """Predict the time of one kernel that was compiled for `chip`."""
    prediction = predict(code.whole, workgroups, ceil_div(threads, code.wave), operand_bytes, chip)
    return KernelJudgement(
        name=name,
        launches=launches,
        workgroups=workgroups,
        threads=threads,
        wave=code.wave,
        registers=code.registers,
        spilled=code.spilled,
        workgroup_bytes=code.workgroup_bytes,
        occupancy=code.occupancy,
        hot=Intensity.of(code.hot_loop()),
        step=Intensity.of(code.step()),
        whole=Intensity.of(code.whole),
        cost=code.whole,
        multiply_adds=code.whole.multiply_adds * workgroups * threads,
        microseconds=prediction.microseconds,
        bound=prediction.bound,
    )
