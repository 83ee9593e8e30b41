"""Small PrimFuncs that can be tuned, and records of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NoReturn

import tvm
from tvm import relax, tirx
from tvm.target import Target

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.layer_norm import layer_norm
from mlc_controlnet.kernels.normalization import GroupNorm, LayerNorm
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable
from mlc_controlnet.kernels.tunable_kernels import tunable_of
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from mlc_controlnet.passes.replace.use_winograd_conv2d import UseWinogradConv2d
from mlc_controlnet.passes.schedule.tuning_records import MEASURED, Record
from mlc_controlnet.tuning.tasks import Task

LLVM = Target({"kind": "llvm", "num-cores": 2})
WEBGPU = Target("webgpu", host={"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"})
OPERATION = Operation("matmul_cpu", 1, (1, 16, 48, 32), ("weights [N, K]",), ("float32[16, 32]", "float32[16, 48]"))
RECORD = Record(OPERATION, {"rows": 4, "columns": 16}, 1e-6, 2e-6, MEASURED, "EPYC", 120.0, "0.27.0")

ATTENTION = Attention(2, 24, 24, 2, 16, "float32", 0.25, layout="together")
LAYER_NORM = LayerNorm((1, 24, 64), 1e-5, "float32")
GROUP_NORM = GroupNorm((1, 16, 8, 16), 4, 1e-5, "float32", True)


def lower(builder: relax.BlockBuilder, target: Target = LLVM) -> tvm.IRModule:
    """Fuse the functions of a builder, without a schedule."""
    transform = relax.transform
    with target:
        return tvm.transform.Sequential(
            [
                *([] if "gpu" in target.keys else [UseWinogradConv2d(target)]),
                UseDirectConv2d(),
                transform.FuseTransposeMatmul(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ]
        )(builder.get())


def make_linear(
    rows: int, columns: int = 48, depth: int = 32, dtype: str = "float32", rounds: bool = True
) -> tvm.IRModule:
    """x @ w.T, summed in float32, as a fused but unscheduled PrimFunc whose name begins with NT_matmul.

    rounds: whether the sums are rounded to `dtype`.
    """
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((rows, depth), dtype))
    weight = relax.Var("weight", relax.TensorType((columns, depth), dtype))
    with builder.function("main", [x, weight]):
        with builder.dataflow():
            transposed = builder.emit(relax.op.permute_dims(weight))
            y = builder.emit(relax.op.matmul(x, transposed, out_dtype="float32"))
            y = builder.emit_output(y if dtype == "float32" or not rounds else relax.op.astype(y, dtype))
        builder.emit_func_output(y)
    return lower(builder)


def make_task() -> Task:
    """make_linear(16) as a task."""
    function = make_linear(16)["NT_matmul"]
    return Task(function, make_tunable(function), 40)


def make_tunable(function: tirx.PrimFunc, target: Target = LLVM) -> Tunable:
    """What can be decided about one of these functions."""
    tunable = tunable_of(function, target)
    assert tunable is not None
    return tunable


def made_up_tunable(space: Sequence[Decisions], operation: Operation = OPERATION) -> Tunable:
    """A space that no function has; the rules choose its first decision, and nobody can schedule it."""

    def refuse(decisions: Decisions) -> NoReturn:
        raise AssertionError(f"nobody schedules {decisions}")

    return Tunable(operation, space[0], lambda: list(space), refuse, 1)


def make_convolution(channels: int = 8, out_channels: int = 16, size: tuple[int, int] = (6, 16)) -> tirx.PrimFunc:
    """A 3x3 convolution of [1, channels, *size] with a bias."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, channels, *size), "float32"))
    weight = relax.Var("weight", relax.TensorType((channels, 3, 3, out_channels), "float32"))  # as kernels read it
    bias = relax.Var("bias", relax.TensorType((1, out_channels, 1, 1), "float32"))
    with builder.function("main", [x, weight, bias]):
        with builder.dataflow():
            as_torch = builder.emit(relax.op.permute_dims(weight, AS_TORCH))
            y = builder.emit(relax.op.nn.conv2d(x, as_torch, padding=1))
            y = builder.emit_output(relax.op.add(y, bias))
        builder.emit_func_output(y)
    (function,) = (f for _, f in lower(builder).functions_items() if isinstance(f, tirx.PrimFunc))
    return function


def make_finished(name: str, target: Target) -> tirx.PrimFunc:
    """The kernel of ATTENTION, of LAYER_NORM or of GROUP_NORM, by the name of the operation."""
    if name == "attention":
        return flash_attention(ATTENTION, target)
    return layer_norm(LAYER_NORM, target) if name == "layer_norm" else group_norm(GROUP_NORM, target).normalize


def changed(**fields: Any) -> Record:
    """Return RECORD with other fields."""
    return dataclasses.replace(RECORD, **fields)
