"""What a search may decide about a kernel, and the name under which a decision is kept.

A schedule of ours is a function of a few numbers: sizes of tiles, of steps and of tasks. The rules choose them by
reasoning; a search may know better on one device. Kept are the numbers alone. Then a record outlives TVM's releases,
which a trace of TVM's schedule primitives does not, and no record can make a wrong kernel: the schedule is ours, and
numbers that are not in the kernel's space are refused.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.s_tir import Schedule

Decisions = Mapping[str, int]
KEY_DIGITS = 16  # of a key, in hexadecimal


@dataclass(frozen=True)
class Operation:
    """What a kernel computes, as far as the time depends on it; nothing of it comes from TVM's data structures.

    Attributes:
        kernel: a schedule of ours, such as `matmul_gpu`.
        version: of that schedule: a change after which old decisions mean something else makes a new one.
        axes: number of iterations of each loop of the reduction.
        form: what else the schedule depends on, such as the layout of an operand.
        params: dtype and shape of each parameter, the output last: "float16[1, 320, 64, 64]".
    """

    kernel: str
    version: int
    axes: tuple[int, ...]
    form: tuple[str, ...]
    params: tuple[str, ...]

    @property
    def key(self) -> str:
        """Hash the operation. It is the same under every release of TVM and of Python."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    @property
    def title(self) -> str:
        """Describe it for readers."""
        return f"{self.kernel} {'x'.join(map(str, self.axes))} -> {self.params[-1]}"


@dataclass(frozen=True)
class Tunable:
    """A PrimFunc with a schedule that has something to decide.

    Attributes:
        operation: what it is filed under.
        chosen: what the rules decide.
        space: lists all decisions that the kernel and its target allow, in a fixed order.
        schedule: schedules the PrimFunc by a decision of the space; TVM may refuse with ScheduleError or ValueError.
        multiply_adds: of a call.
    """

    operation: Operation
    chosen: Decisions
    space: Callable[[], list[Decisions]]
    schedule: Callable[[Decisions], tirx.PrimFunc]
    multiply_adds: int


def params_of(function: tirx.PrimFunc) -> tuple[str, ...]:
    """Describe each parameter; sizes that are not known have a star."""
    return tuple(f"{param.ty.dtype}[{', '.join(map(_size, param.ty.shape))}]" for param in function.params)


def _size(size: Any) -> str:
    return str(int(size)) if isinstance(size, tirx.IntImm) else "*"


def apply_in_place(function: tirx.PrimFunc, schedule_in_place: Callable[[Schedule], bool]) -> tirx.PrimFunc:
    """Return the function under a schedule that works in place."""
    schedule = Schedule(function)
    assert schedule_in_place(schedule), "the schedule accepted this function before"
    return schedule.mod["main"]
