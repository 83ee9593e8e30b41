"""What the processor schedules compute, against torch, and what they leave alone."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import tvm
import tvm_ffi
from torch.nn import functional
from tvm import relax, tirx
from tvm.s_tir import SBlock
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.instruction_sets import ALL_INSTRUCTION_SETS, INSTRUCTION_SETS, host_instruction_sets
from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from mlc_controlnet.passes.schedule.schedule_for_cpu import ScheduleForCPU

LLVM = Target({"kind": "llvm", "num-cores": 2})


def lower_and_schedule(mod: tvm.IRModule, target: Target = LLVM) -> tvm.IRModule:
    transform = relax.transform
    with target:
        for step in (
            transform.FuseTransposeMatmul(),
            transform.LegalizeOps(),
            transform.AnnotateTIROpPattern(),
            transform.FuseOps(),
            transform.FuseTIR(),
            transform.DeadCodeElimination(),
            ScheduleForCPU(),
        ):
            mod = step(mod)
    return mod


def run(mod: tvm.IRModule, *inputs: torch.Tensor, target: Target = LLVM) -> torch.Tensor:
    machine = relax.VirtualMachine(tvm.compile(mod, target), tvm.cpu())
    return torch.tensor(machine["main"](*(tvm.runtime.tensor(x.numpy()) for x in inputs)).numpy())


def prim_funcs(mod: tvm.IRModule) -> list[tirx.PrimFunc]:
    return [function for _, function in mod.functions_items() if isinstance(function, tirx.PrimFunc)]


def random(*shape: int) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32"))


def close(got: torch.Tensor, want: torch.Tensor) -> bool:
    return bool((got - want).norm() < 1e-6 * want.norm())


@pytest.mark.parametrize("size", [(16, 16), (12, 16), (4, 4), (5, 7), (17, 9)], ids=str)
@pytest.mark.parametrize("kernel,stride,padding", [(3, 1, 1), (3, 2, 1), (1, 1, 0)], ids=str)
def test_convolution_with_bias_residual_and_silu(size, kernel, stride, padding) -> None:
    x, weight, bias = random(1, 6, *size), random(10, 6, kernel, kernel), random(10)
    want = functional.conv2d(x, weight, bias, stride, padding)
    residual = random(*want.shape)
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(tuple(value.shape), "float32"))
        for name, value in (("x", x), ("weight", weight), ("bias", bias), ("residual", residual))
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(variables[0], variables[1], strides=stride, padding=padding))
            y = builder.emit(relax.op.add(y, builder.emit(relax.op.reshape(variables[2], [1, 10, 1, 1]))))
            y = builder.emit(relax.op.add(y, variables[3]))
            y = builder.emit_output(relax.op.nn.silu(y))
        builder.emit_func_output(y)
    mod = lower_and_schedule(builder.get())
    assert all(function.attrs["tirx.is_scheduled"] for function in prim_funcs(mod))
    assert close(run(mod, x, weight, bias, residual), functional.silu(want + residual))


@pytest.mark.parametrize("name", host_instruction_sets())
@pytest.mark.parametrize(
    "kernel,stride,size", [(3, 1, (16, 32)), (3, 2, (16, 32)), (1, 1, (16, 32)), (1, 1, (66, 64))], ids=str
)
def test_convolution_in_several_blocks_of_channels_with_every_vector_of_this_machine(
    name, kernel, stride, size
) -> None:
    target = Target(INSTRUCTION_SETS[name].tvm_target)
    x, weight = random(1, 64, *size), random(96, 64, kernel, kernel)
    builder = relax.BlockBuilder()
    a = relax.Var("x", relax.TensorType(tuple(x.shape), "float32"))
    b = relax.Var("weight", relax.TensorType(tuple(weight.shape), "float32"))
    with builder.function("main", [a, b]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.conv2d(a, b, strides=stride, padding=kernel // 2))
        builder.emit_func_output(y)
    got = run(lower_and_schedule(builder.get(), target), x, weight, target=target)
    assert close(got, functional.conv2d(x, weight, stride=stride, padding=kernel // 2))


@pytest.mark.parametrize("name", host_instruction_sets())
@pytest.mark.parametrize("channels,size", [(96, (16, 32)), (10, (5, 7))], ids=str)
def test_a_doubled_picture_with_bias_and_residual(name: str, channels: int, size: tuple[int, int]) -> None:
    target = Target(INSTRUCTION_SETS[name].tvm_target)
    height, width = size
    x, weight, bias = random(1, 64, *size), random(channels, 64, 3, 3), random(channels)
    residual = random(1, channels, 2 * height, 2 * width)
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(tuple(value.shape), "float32"))
        for name, value in (("x", x), ("weight", weight), ("bias", bias), ("residual", residual))
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit(
                relax.op.image.resize2d(
                    variables[0],
                    (2 * height, 2 * width),
                    layout="NCHW",
                    method="nearest_neighbor",
                    coordinate_transformation_mode="asymmetric",
                    rounding_method="floor",
                )
            )
            y = builder.emit(relax.op.nn.conv2d(y, variables[1], padding=1))
            y = builder.emit(relax.op.add(y, builder.emit(relax.op.reshape(variables[2], [1, channels, 1, 1]))))
            y = builder.emit_output(relax.op.add(y, variables[3]))
        builder.emit_func_output(y)
    mod = lower_and_schedule(FoldResizeIntoConv2d(on_gpu=False)(builder.get()), target)
    assert all(function.attrs["tirx.is_scheduled"] for function in prim_funcs(mod))
    doubled = functional.interpolate(x, scale_factor=2)
    assert close(
        run(mod, x, weight, bias, residual, target=target),
        functional.conv2d(doubled, weight, bias, padding=1) + residual,
    )


@pytest.mark.parametrize(
    "rows,depth,columns",
    [*product([1, 3, 16, 77], [64], [96]), *product([1, 3, 16, 77], [24], [10]), (3, 7, 5), (77, 7, 5), (1536, 8, 96)],
    ids=str,
)
def test_linear_with_bias(rows, depth, columns) -> None:
    x, weight, bias = random(1, rows, depth), random(columns, depth), random(columns)
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(tuple(value.shape), "float32"))
        for name, value in (("x", x), ("weight", weight), ("bias", bias))
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(variables[0], builder.emit(relax.op.permute_dims(variables[1]))))
            y = builder.emit_output(relax.op.add(y, variables[2]))
        builder.emit_func_output(y)
    mod = lower_and_schedule(builder.get())
    assert all(function.attrs["tirx.is_scheduled"] for function in prim_funcs(mod))
    assert close(run(mod, x, weight, bias), functional.linear(x, weight, bias))


def tasks(mod: tvm.IRModule) -> list[int]:
    """How often each parallel loop runs."""
    found = []

    def visit(loop: tirx.For) -> None:
        if loop.kind == tirx.ForKind.PARALLEL:
            found.append(int(loop.extent))

    for function in prim_funcs(mod):
        tvm_ffi.structural_walk(function.body, (tirx.For, visit), order="pre")
    return found


def of_two(op: Callable[[relax.Var, relax.Var], relax.Expr], x: torch.Tensor, weight: torch.Tensor) -> tvm.IRModule:
    """A module whose main(x, weight) is op(x, weight)."""
    a = relax.Var("x", relax.TensorType(tuple(x.shape), "float32"))
    b = relax.Var("weight", relax.TensorType(tuple(weight.shape), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [a, b]):
        with builder.dataflow():
            y = builder.emit_output(op(a, b))
        builder.emit_func_output(y)
    return builder.get()


def linear(x: relax.Var, weight: relax.Var) -> relax.Expr:
    return relax.op.matmul(x, relax.op.permute_dims(weight))


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_a_convolution_of_few_channels_and_pixels_has_work_for_two_threads(name: str) -> None:
    x, weight = random(1, 32, 16, 16), random(16, 32, 3, 3)
    mod = of_two(partial(relax.op.nn.conv2d, padding=1), x, weight)
    assert min(tasks(lower_and_schedule(mod, Target(INSTRUCTION_SETS[name].tvm_target)))) >= 2


def test_many_rows_and_few_columns_have_work_for_many_threads() -> None:
    x, weight = random(1, 2048, 24), random(96, 24)
    mod = lower_and_schedule(of_two(linear, x, weight))
    assert min(tasks(mod)) >= 32
    assert close(run(mod, x, weight), functional.linear(x, weight))


def test_the_panels_of_a_block_of_rows_follow_each_other() -> None:
    """Its rows stay in the second-level cache while every panel of columns passes them."""
    mod = lower_and_schedule(of_two(relax.op.matmul, random(1, 2048, 8), random(8, 1280)))
    (count,) = tasks(mod)
    script = prim_funcs(mod)[0].script().replace("T.int64", "")
    assert f"// ({count // 4}) * (512)" in script, "the task's outer part is one of four blocks of rows"


def allocated(mod: tvm.IRModule) -> list[tuple[int, ...]]:
    """The shapes of what each kernel allocates for itself."""
    found: list[tuple[int, ...]] = []

    def visit(block: SBlock) -> None:
        found.extend(tuple(int(size) for size in buffer.shape) for buffer in block.alloc_buffers)

    for function in prim_funcs(mod):
        tvm_ffi.structural_walk(function.body, (SBlock, visit), order="pre")
    return found


def test_narrow_micro_tiles_share_a_panel_whose_rows_are_whole_lines_of_the_cache() -> None:
    target = Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target)
    mod = lower_and_schedule(of_two(relax.op.matmul, random(1, 2048, 8), random(8, 1280)), target)
    assert tasks(mod) == [1280 // 64 * 2048 // 512], "panels of four micro-tiles of 16 columns, by blocks of rows"


@pytest.mark.parametrize("rows,padded", [(77, 78), (64, None), (257, None)], ids=str)
def test_few_rows_are_padded_where_no_divisor_of_them_fills_the_registers(rows: int, padded: int | None) -> None:
    """77 rows have tiles of 6, not of 11 by half as many columns. A copy of many rows would take what that saves."""
    target = Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target)
    x, weight = random(1, rows, 48), random(48, 1280)
    mod = lower_and_schedule(of_two(relax.op.matmul, x, weight), target)
    copies = [shape for shape in allocated(mod) if shape[0] == 1 and shape[-1] == 48]
    assert copies == ([] if padded is None else [(1, padded, 48)])


def direct(
    depth: int, channels: int, kernel: int, size: int = 8, target: Target = LLVM
) -> tuple[tvm.IRModule, torch.Tensor, torch.Tensor]:
    """A convolution of a square picture as a model has it, its weights [C, kh, kw, N]; also picture and weights."""
    x, weight = random(1, depth, size, size), random(depth, kernel, kernel, channels)

    def convolved(x: relax.Var, weight: relax.Var) -> relax.Expr:
        return relax.op.nn.conv2d(x, relax.op.permute_dims(weight, [3, 0, 1, 2]), padding=kernel // 2)

    return lower_and_schedule(UseDirectConv2d()(of_two(convolved, x, weight)), target), x, weight


@pytest.mark.parametrize("kernel,order", [(3, (1, 10, 512, 10)), (1, (1, 8, 2, 512, 4))], ids=str)
def test_micro_tiles_read_a_picture_whose_channels_follow_each_other(kernel: int, order: tuple[int, ...]) -> None:
    mod, x, weight = direct(depth=512, channels=64, kernel=kernel)
    assert order in allocated(mod)
    assert close(run(mod, x, weight), functional.conv2d(x, weight.permute(3, 0, 1, 2), padding=kernel // 2))


def test_several_micro_tiles_of_a_long_row_share_the_weights_and_add_up_in_steps_of_input_channels() -> None:
    target = Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target)
    mod, x, weight = direct(depth=320, channels=40, kernel=1, size=64, target=target)
    assert (1, 64, 4, 320, 1, 16) in allocated(mod), "pixels of a micro-tile, of all channels, side by side"
    assert tasks(mod) == [64], "panels of 64 pixels"
    script = prim_funcs(mod)[0].script().replace("T.int64", "")
    assert "T.grid((4), (8), (1), (4), (80)" in script, "80 input channels, for all channels and pixels of a panel"
    want = functional.conv2d(x, weight.permute(3, 0, 1, 2))
    assert close(run(mod, x, weight, target=target), want)


@pytest.mark.parametrize(
    "name,long,short", [("x86-64-v3", True, False), ("x86-64-v4", True, True), ("wasm-simd128", False, False)]
)
def test_vectors_run_along_pixels_where_rows_are_long_and_registers_large(name: str, long: bool, short: bool) -> None:
    target = Target(ALL_INSTRUCTION_SETS[name].tvm_target)
    for size, along in ((64, long), (32, short)):
        mod, _, _ = direct(depth=640, channels=64, kernel=1, size=size, target=target)
        assert any(len(shape) == 6 for shape in allocated(mod)) == along, allocated(mod)


def test_one_panel_of_channels_reads_a_picture_where_it_lies() -> None:
    mod, x, weight = direct(depth=512, channels=4, kernel=1)
    assert len(allocated(mod)) == 2, "its weights and its sums"
    assert close(run(mod, x, weight), functional.conv2d(x, weight.permute(3, 0, 1, 2)))


@pytest.mark.parametrize("columns,threads", [(1280, True), (64, False)], ids=str)
def test_columns_of_one_row_are_shared_by_threads_where_it_is_worth_it(columns: int, threads: bool) -> None:
    x, weight = random(1, 1, 320), random(columns, 320)
    mod = lower_and_schedule(of_two(linear, x, weight))
    assert tasks(mod) == ([columns] if threads else [])
    assert close(run(mod, x, weight), functional.linear(x, weight))


def test_what_is_convolved_may_be_added_to_the_result() -> None:
    x, weight = random(1, 32, 8, 16), random(32, 32, 1, 1)
    builder = relax.BlockBuilder()
    a = relax.Var("x", relax.TensorType(tuple(x.shape), "float32"))
    b = relax.Var("weight", relax.TensorType(tuple(weight.shape), "float32"))
    with builder.function("main", [a, b]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.add(relax.op.nn.conv2d(a, b), a))
        builder.emit_func_output(y)
    assert close(run(lower_and_schedule(builder.get()), x, weight), functional.conv2d(x, weight) + x)


@pytest.mark.parametrize("batch", [1, 3])
def test_matmul_of_two_activations(batch) -> None:
    x, y = random(batch, 20, 12), random(batch, 12, 18)
    builder = relax.BlockBuilder()
    a = relax.Var("a", relax.TensorType(tuple(x.shape), "float32"))
    b = relax.Var("b", relax.TensorType(tuple(y.shape), "float32"))
    with builder.function("main", [a, b]):
        with builder.dataflow():
            out = builder.emit_output(relax.op.matmul(a, b))
        builder.emit_func_output(out)
    assert close(run(lower_and_schedule(builder.get()), x, y), x @ y)


def test_layer_norm_gelu_and_concatenation() -> None:
    x, gamma, beta = random(1, 9, 48), random(48), random(48)
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(tuple(value.shape), "float32"))
        for name, value in (("x", x), ("gamma", gamma), ("beta", beta))
    ]
    with builder.function("main", variables):
        with builder.dataflow():
            norm = builder.emit(relax.op.nn.layer_norm(*variables, axes=-1))
            gelu = builder.emit(relax.op.nn.gelu(variables[0]))
            out = builder.emit_output(relax.op.concat([norm, gelu], axis=1))
        builder.emit_func_output(out)
    mod = lower_and_schedule(builder.get())
    assert all(function.attrs["tirx.is_scheduled"] for function in prim_funcs(mod))
    want = torch.cat([functional.layer_norm(x, (48,), gamma, beta), functional.gelu(x)], 1)
    assert close(run(mod, x, gamma, beta), want)


def test_scheduled_functions_and_unknown_forms_are_left_alone() -> None:
    @I.ir_module
    class Before:
        @T.prim_func(s_tir=True, private=True)
        def scheduled(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
            T.func_attr({"tirx.is_scheduled": True})
            for i in range(64):
                with T.sblock("copy"):
                    v = T.axis.spatial(64, i)
                    y[v] = x[v]

        @T.prim_func(s_tir=True, private=True)
        def two_outputs(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32"), z: T.Buffer((64,), "float32")):
            for i in range(64):
                with T.sblock("once"):
                    v = T.axis.spatial(64, i)
                    y[v] = x[v]
            for i in range(64):
                with T.sblock("twice"):
                    v = T.axis.spatial(64, i)
                    z[v] = x[v] + x[v]

    with LLVM:
        tvm.ir.assert_structural_equal(ScheduleForCPU()(Before), Before)
