from collections.abc import Callable
from typing import Protocol

import pytest
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.normalization import GroupNorm
from mlc_controlnet.passes.replace.use_group_norm import UseGroupNorm

LLVM = Target({"kind": "llvm", "num-cores": 2})
WEBGPU = Target("webgpu")
LARGE = (256, 160)  # pixels: a group of four channels is two kernels, of a processor and of a GPU


class Norm(Protocol):
    """Emits a group norm of x, and the silu of it if that is asked for."""

    def __call__(self, x: relax.Var, silu: bool = False, output: bool = False) -> relax.Var: ...


Graph = Callable[[relax.BlockBuilder, Norm, relax.Var], list[relax.Var]]


def module(graph: Graph, of_kernels: Target | None = None, size: tuple[int, int] = LARGE) -> tvm.IRModule:
    """main(x, gamma, beta) with the outputs that `graph` emits: with group norms of Relax, or with kernels of ours."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, *size), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((8,), "float32")) for name in ("gamma", "beta"))
    kernels: dict[bool, tuple[tvm.ir.GlobalVar, tvm.ir.GlobalVar, tuple[int, int, int]]] = {}

    def in_relax(x: relax.Var, silu: bool = False, output: bool = False) -> relax.Var:
        norm = relax.op.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=1, axes=[2, 3])
        emit = builder.emit_output if output else builder.emit
        return emit(relax.op.nn.silu(builder.emit(norm)) if silu else norm)

    def in_kernels(x: relax.Var, silu: bool = False, output: bool = False) -> relax.Var:
        if silu not in kernels:
            made = group_norm(GroupNorm((1, 8, *size), 2, 1e-5, "float32", silu), of_kernels)
            normalize = builder.add_func(made.normalize, f"group_norm_normalize{'_silu' if silu else ''}")
            statistics = builder.add_func(made.statistics, "group_norm_statistics")
            kernels[silu] = statistics, normalize, made.partial_shape
        statistics, normalize, shape = kernels[silu]
        partial = builder.emit(relax.call_tir(statistics, [x], relax.TensorType(shape, "float32")))
        emit = builder.emit_output if output else builder.emit
        return emit(relax.call_tir(normalize, [x, partial, gamma, beta], x.ty))

    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            outputs = graph(builder, in_kernels if of_kernels else in_relax, x)
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    return builder.get()


def norm_alone(_builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    return [norm(x, output=True)]


def norm_and_silu(_builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    return [norm(x, silu=True, output=True)]


def two_norms_in_a_chain(_builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    return [norm(norm(x, silu=True), silu=True, output=True)]


def silu_of_the_silu(builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    return [builder.emit_output(relax.op.nn.silu(norm(x, silu=True)))]


def norm_with_another_reader(builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    y = norm(x)
    z = builder.emit(relax.op.nn.silu(y))
    return [builder.emit_output(relax.op.add(y, z))]


def norm_that_is_an_output(builder: relax.BlockBuilder, norm: Norm, x: relax.Var) -> list[relax.Var]:
    y = norm(x, output=True)
    return [y, builder.emit_output(relax.op.nn.silu(y))]


@pytest.mark.parametrize(
    "graph",
    [norm_alone, norm_and_silu, two_norms_in_a_chain, silu_of_the_silu],
    ids=lambda graph: graph.__name__.replace("_", " "),
)
def test_a_norm_and_the_silu_of_it_become_kernels(graph: Graph) -> None:
    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(module(graph)), module(graph, of_kernels=LLVM))


@pytest.mark.parametrize("graph", [norm_with_another_reader, norm_that_is_an_output], ids=lambda graph: graph.__name__)
def test_a_silu_stays_if_something_else_reads_the_norm(graph: Graph) -> None:
    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(module(graph)), module(graph, of_kernels=LLVM))


def test_channels_last_stay() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 6, 4, 8), "float32"))
    gamma, beta = (relax.Var(name, relax.TensorType((8,), "float32")) for name in ("gamma", "beta"))
    with builder.function("main", [x, gamma, beta]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.group_norm(x, gamma, beta, num_groups=2, channel_axis=3, axes=[1, 2]))
            z = builder.emit_output(relax.op.nn.silu(y))
        builder.emit_func_output(z)
    tvm.ir.assert_structural_equal(UseGroupNorm(LLVM)(builder.get()), builder.get())


def test_a_large_group_is_two_kernels_of_a_gpu() -> None:
    before, expected = (module(norm_and_silu, target, size=(64, 64)) for target in (None, WEBGPU))
    tvm.ir.assert_structural_equal(UseGroupNorm(WEBGPU)(before), expected)


@pytest.mark.parametrize("target", [LLVM, WEBGPU], ids=["llvm", "webgpu"])
def test_a_small_group_is_one_kernel(target: Target) -> None:
    after = UseGroupNorm(target)(module(norm_and_silu, size=(32, 32)))
    (call,) = (binding.value for binding in after["main"].body.blocks[0].bindings)
    assert call.args[0].name_hint == "group_norm_silu"
