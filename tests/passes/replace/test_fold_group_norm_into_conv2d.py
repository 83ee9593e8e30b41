from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax

from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.replace.fold_group_norm_into_conv2d import FoldGroupNormIntoConv2d
from tests.kernels.webgpu_device import WEBGPU
from tests.kernels.webgpu_module import run_module_on_webgpu
from tests.passes.evaluate import ops

EVERY_PLANE = FoldGroupNormIntoConv2d(large_plane=0)


def normalized(
    stride: int = 1, padding: int = 1, silu: bool = True, out_channels: int = 16, read_twice: bool = False
) -> tvm.IRModule:
    """A group norm of [1, 12, 10, 14], silu, and a 3x3 convolution with bias."""
    builder = relax.BlockBuilder()
    shapes = {"x": (1, 12, 10, 14), "gamma": (12,), "beta": (12,), "w": (out_channels, 12, 3, 3), "b": (out_channels,)}
    x, gamma, beta, w, b = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items())
    with builder.function("main", [x, gamma, beta, w, b]):
        with builder.dataflow():
            y = builder.emit(relax.op.nn.group_norm(x, gamma, beta, num_groups=3, channel_axis=1, axes=[2, 3]))
            if silu:
                y = builder.emit(relax.op.nn.silu(y))
            out = builder.emit(relax.op.nn.conv2d(y, w, strides=stride, padding=padding, out_dtype="float32"))
            if read_twice:
                out = builder.emit(relax.op.add(out, relax.op.mean(y)))
            out = builder.emit_output(relax.op.add(out, relax.op.reshape(b, (1, out_channels, 1, 1))))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize(("stride", "silu"), [(1, True), (2, False)])
def test_the_convolution_reads_the_plane_and_computes_the_same(stride: int, silu: bool, tmp_path: Path) -> None:
    after = EVERY_PLANE(normalized(stride, silu=silu))
    assert not {"relax.nn.group_norm", "relax.nn.silu", "relax.nn.conv2d"} & ops(after["main"])
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in ((1, 12, 10, 14), 12, 12, (16, 12, 3, 3), 16)]
    inputs[0] += 5  # its mean has to be taken off
    x, gamma, beta, w, b = (torch.tensor(value).double() for value in inputs)
    y = F.group_norm(x, 3, gamma, beta)
    wanted = F.conv2d(F.silu(y) if silu else y, w, b, stride=stride, padding=1).numpy()
    scheduled = Pipeline(WEBGPU).run(after, until="check")
    np.testing.assert_allclose(run_module_on_webgpu(scheduled, inputs, tmp_path), wanted, rtol=1e-4, atol=1e-4)


def test_the_normalized_plane_is_never_written() -> None:
    scheduled = Pipeline(WEBGPU).run(EVERY_PLANE(normalized()), until="check")
    shapes = [tuple(map(int, binding.var.ty.shape)) for binding in scheduled["main"].body.blocks[0].bindings]
    assert (1, 12, 10, 14) not in shapes


@pytest.mark.parametrize(
    "before",
    [normalized(padding=0), normalized(out_channels=320), normalized(read_twice=True)],
    ids=["no halo", "many output channels", "another reader"],
)
def test_anything_else_stays(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(EVERY_PLANE(before), before)


def test_a_small_plane_stays() -> None:
    before = normalized()
    tvm.ir.assert_structural_equal(FoldGroupNormIntoConv2d()(before), before)
