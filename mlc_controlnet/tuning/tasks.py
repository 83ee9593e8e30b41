"""Finds the PrimFuncs of a model that can be tuned."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.components import CONTROLNET, TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE_DECODER
from mlc_controlnet.kernels import schedule_convolution_cpu, schedule_matmul_cpu
from mlc_controlnet.kernels.marks import is_scheduled
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of
from mlc_controlnet.passes.schedule.apply_tuning_records import as_workload

# For one picture of 20 steps with classifier-free guidance.
CALLS_PER_PICTURE = {TEXT_ENCODER: 2, TEXT_ENCODER_2: 2, CONTROLNET: 40, UNET: 40, VAE_DECODER: 1}


@dataclass(frozen=True)
class Space:
    """The schedules that the search tries for one kind of PrimFunc.

    Attributes:
        schedule: schedules a PrimFunc with a tile, or with the rules' tile for None; False: it is of another kind.
        tiles: lists the tiles to try.
    """

    schedule: Callable[[Schedule, Registers, Any], bool]
    tiles: Callable[[tirx.PrimFunc, Registers], list[Any]]


SPACES = (
    Space(schedule_convolution_cpu.schedule_convolution, schedule_convolution_cpu.tiles),
    Space(schedule_matmul_cpu.schedule_matmul, schedule_matmul_cpu.tiles),
)


ANY = Registers(count=16, lanes=8)  # which space a function has does not depend on them


@dataclass(frozen=True)
class Task:
    """One PrimFunc and its number of calls per picture."""

    name: str
    function: tirx.PrimFunc
    calls: int

    @property
    def shapes(self) -> list[list[int]]:
        """The shape of each parameter."""
        return [[int(size) for size in parameter.ty.shape] for parameter in self.function.params]


def find_tasks(lowered: tvm.IRModule) -> list[Task]:
    """List the convolutions and matrix products of a module that has been through phase lower."""
    calls = count_calls(lowered)
    return [
        Task(global_var.name_hint, function, calls[global_var.name_hint])
        for global_var, function in lowered.functions_items()
        if isinstance(function, tirx.PrimFunc)
        and not is_scheduled(function)
        and calls[global_var.name_hint]
        and _space_of(function) is not None
    ]


def schedule_by_rules(function: tirx.PrimFunc, target: Target) -> Schedule:
    """Schedule the function as it is scheduled without a record."""
    space = _space_of(function)
    assert space is not None, "tasks have a space"
    return _scheduled(space, function, registers_of(target), None)


def list_candidates(function: tirx.PrimFunc, target: Target) -> Iterator[Schedule]:
    """Yield every schedule of the function's space."""
    registers = registers_of(target)
    space = _space_of(function)
    assert space is not None, "tasks have a space"
    for tile in space.tiles(function, registers):
        yield _scheduled(space, function, registers, tile)


def _space_of(function: tirx.PrimFunc) -> Space | None:
    return next((space for space in SPACES if space.schedule(Schedule(function), ANY, None)), None)


def _scheduled(space: Space, function: tirx.PrimFunc, registers: Registers, tile: Any) -> Schedule:
    schedule = Schedule(as_workload(function))
    assert space.schedule(schedule, registers, tile), "the space has this function"
    return schedule


def count_calls(lowered: tvm.IRModule) -> Counter[str]:
    """Count the calls of each PrimFunc per picture."""
    counts: Counter[str] = Counter()
    for global_var, function in lowered.functions_items():
        if not isinstance(function, relax.Function):
            continue
        weight = CALLS_PER_PICTURE.get(global_var.name_hint, 0)

        def visit(expr: relax.Expr, weight: int = weight) -> None:
            if isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir"):
                counts[expr.args[0].name_hint] += weight

        relax.analysis.post_order_visit(function, visit)
    return counts
