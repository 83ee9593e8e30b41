"""Convolutions by Winograd's F(4x4, 3x3): what they compute, against torch, and which ones they are."""

import math

import numpy as np
import pytest
import torch
import tvm
from torch.nn import functional
from tvm import relax
from tvm.s_tir import Schedule
from tvm.target import Target

from mlc_controlnet.instruction_sets import INSTRUCTION_SETS, host_instruction_sets
from mlc_controlnet.kernels.registers_cpu import registers_of
from mlc_controlnet.kernels.schedule_winograd_cpu import (
    LEAST_TASKS,
    WinogradTile,
    default_tile,
    schedule_winograd,
    tiles,
)
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.replace.use_winograd_conv2d import UseWinogradConv2d
from tests.passes.evaluate import ops
from tests.tuning.operations import make_convolution

LEAST_DB = 95


def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.tensor(scale * np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32"))


def convolution(x: torch.Tensor, weight: torch.Tensor, padding: int = 1, stride: int = 1) -> tvm.IRModule:
    """silu(conv2d(x, weight) + bias + residual)."""
    channels, pixels = weight.shape[0], [size // stride - 2 + 2 * padding for size in x.shape[2:]]
    shapes = [tuple(x.shape), tuple(weight.shape), (1, channels, 1, 1), (x.shape[0], channels, *pixels)]
    builder = relax.BlockBuilder()
    variables = [
        relax.Var(name, relax.TensorType(shape, "float32"))
        for name, shape in zip(("x", "weight", "bias", "residual"), shapes, strict=True)
    ]
    with builder.function("main", variables, {"num_input": 4}):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.conv2d(variables[0], variables[1], strides=stride, padding=padding))
            y = builder.emit(relax.op.add(y, variables[2]))
            y = builder.emit(relax.op.add(y, variables[3]))
            y = builder.emit_output(relax.op.nn.silu(y))
        builder.emit_func_output(y)
    return builder.get()


def decibels(got: np.ndarray, wanted: torch.Tensor) -> float:
    reference = wanted.double().numpy()
    return 10 * math.log10((reference**2).sum() / ((got - reference) ** 2).sum())


def fires(mod: tvm.IRModule, target: str = "x86-64-v3") -> bool:
    rewritten = UseWinogradConv2d(Target(INSTRUCTION_SETS[target].tvm_target))(mod)
    return "relax.nn.conv2d" not in ops(rewritten["main"])


@pytest.mark.parametrize("name", host_instruction_sets())
@pytest.mark.parametrize(
    "batch,size,depth",
    [(1, (16, 24), 48), (2, (16, 16), 48), (1, (12, 64), 48), (2, (16, 16), 192), (1, (32, 64), 96)],
    ids=str,
)
def test_bias_residual_and_silu_are_computed_with_it(name: str, batch: int, size: tuple[int, int], depth: int) -> None:
    target = Target(INSTRUCTION_SETS[name].tvm_target)
    x, weight, bias = random(batch, depth, *size, scale=30), random(96, depth, 3, 3, scale=0.05), random(1, 96, 1, 1)
    residual = random(batch, 96, *size)
    mod = convolution(x, weight)
    assert fires(mod, name)
    machine = relax.VirtualMachine(tvm.compile(Pipeline(target).run(mod), target), tvm.cpu())
    got = machine["main"](*(tvm.runtime.tensor(each.numpy()) for each in (x, weight, bias, residual))).numpy()
    wanted = functional.silu(functional.conv2d(x.double(), weight.double(), padding=1) + bias + residual)
    assert decibels(got, wanted) > LEAST_DB


def test_a_search_of_one_core_leaves_tasks_for_others() -> None:
    registers = registers_of(Target(INSTRUCTION_SETS["x86-64-v4"].tvm_target))
    axes = [1, 1, 6, 6, 64, 640, 640]
    chosen = default_tile(axes, registers)
    assert {tile.channels for tile in tiles(axes, registers)} >= {chosen.channels, 80}
    assert max(tile.channels for tile in tiles(axes, registers)) == 640 // LEAST_TASKS


def test_a_step_has_the_weights_that_a_second_level_cache_holds() -> None:
    registers = registers_of(Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target))
    for axes in ([1, 1, 6, 6, 16, 1280, 2560], [1, 1, 6, 6, 64, 640, 960], [1, 2, 6, 6, 128, 320, 320]):
        tile = default_tile(axes, registers)
        assert 256 * 1024 < 4 * 36 * tile.step * tile.channels < 640 * 1024
    full, half = (default_tile([1, 1, 6, 6, count, 320, 640], registers) for count in (128, 64))
    assert half.step == 2 * full.step, "the sums of a full block want the cache, too"
    shallow = default_tile([1, 1, 6, 6, 64, 64, 48], registers)
    assert shallow.step == 48, "all input channels"


def test_few_pixels_are_winograds_where_weights_are_transformed_in_steps() -> None:
    mod = convolution(random(1, 48, 8, 8), random(96, 48, 3, 3))
    assert fires(mod, "x86-64-v3")
    assert not fires(mod, "x86-64-v4"), "not measured"


@pytest.mark.parametrize("steps", [1, 8])
def test_the_weights_of_a_step_are_read_before_any_is_transformed(steps: int) -> None:
    target = Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target)
    schedule = Schedule(make_convolution(64, 128, (16, 16)))
    tile = WinogradTile(channels=64, tiles=4, vectors=2, whole=1, step=64 // steps)
    assert schedule_winograd(schedule, registers_of(target), tile)
    loops = (int(schedule.get(loop).extent) for loop in schedule.get_loops(schedule.get_sblock("weight_global")))
    panels, of_step, vectors = 2, [64 // steps, 3, 3], [8, 8]
    assert [extent for extent in loops if extent > 1] == [panels, *[steps][: steps > 1], *of_step, *vectors]


@pytest.mark.parametrize(
    "why,size,channels,options",
    [
        ("fours do not divide the picture", (18, 16), (48, 96), {}),
        ("few pixels", (4, 12), (48, 96), {}),
        ("few channels", (16, 16), (8, 96), {}),
        ("few results", (16, 16), (48, 8), {}),
        ("no padding", (18, 18), (48, 96), {"padding": 0}),
        ("vectors are not full", (16, 16), (48, 36), {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_convolutions_stay(why: str, size: tuple[int, int], channels: tuple[int, int], options: dict) -> None:
    into, out = channels
    assert not fires(convolution(random(1, into, *size), random(out, into, 3, 3), **options))
