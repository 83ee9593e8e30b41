"""Finds the kernels of a model that a search can decide about."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import relax, tirx
from tvm.target import Target

from mlc_controlnet.components import CONTROLNET, TEXT_ENCODER, TEXT_ENCODER_2, UNET, VAE_DECODER
from mlc_controlnet.kernels.tunable import Tunable
from mlc_controlnet.kernels.tunable_kernels import tunable_of

# For one picture of 20 steps with classifier-free guidance.
CALLS_PER_PICTURE = {TEXT_ENCODER: 2, TEXT_ENCODER_2: 2, CONTROLNET: 40, UNET: 40, VAE_DECODER: 1}


@dataclass(frozen=True)
class Task:
    """One operation, a PrimFunc that computes it, and its number of calls per picture."""

    function: tirx.PrimFunc
    tunable: Tunable
    calls: int

    @property
    def key(self) -> str:
        """The operation's key."""
        return self.tunable.operation.key

    @property
    def title(self) -> str:
        """The operation's title."""
        return self.tunable.operation.title


def find_tasks(lowered: tvm.IRModule, target: Target, calls_of: Mapping[str, int] = CALLS_PER_PICTURE) -> list[Task]:
    """List the tunable operations of a module that has been through phase lower, each once.

    calls_of: function of the module -> its calls per picture; others are not called.
    """
    calls = count_calls(lowered, calls_of)
    tasks: dict[str, Task] = {}
    for global_var, function in lowered.functions_items():
        count = calls[global_var.name_hint]
        if not isinstance(function, tirx.PrimFunc) or not count:
            continue
        tunable = tunable_of(function, target)
        if tunable is not None:
            known = tasks.get(tunable.operation.key)
            count += known.calls if known else 0
            tasks[tunable.operation.key] = Task(function, tunable, count)
    return list(tasks.values())


def count_calls(lowered: tvm.IRModule, calls_of: Mapping[str, int] = CALLS_PER_PICTURE) -> Counter[str]:
    """Count the calls of each PrimFunc per picture."""
    counts: Counter[str] = Counter()
    for global_var, function in lowered.functions_items():
        if not isinstance(function, relax.Function):
            continue
        weight = calls_of.get(global_var.name_hint, 0)

        def visit(expr: relax.Expr, weight: int = weight) -> None:
            if isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir"):
                counts[expr.args[0].name_hint] += weight

        relax.analysis.post_order_visit(function, visit)
    return counts
