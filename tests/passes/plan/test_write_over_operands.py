from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax

from mlc_controlnet.compile.library import count_launches_and_bytes
from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.plan.write_over_operands import WriteOverOperands
from tests.kernels.webgpu_device import WEBGPU
from tests.kernels.webgpu_module import run_module_on_webgpu
from tests.passes.evaluate import ops

PICTURE, WEIGHT = (1, 16, 12, 20), (16, 3, 3, 16)  # the weight as kernels read it
Emit = Callable[[relax.Expr], relax.Var]
Build = Callable[[Emit, relax.Var, relax.Var], relax.Expr]


def function_of(build: Build) -> tvm.IRModule:
    """`main` of a picture x and a weight w."""
    builder = relax.BlockBuilder()
    x, w = relax.Var("x", relax.TensorType(PICTURE, "float32")), relax.Var("w", relax.TensorType(WEIGHT, "float32"))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            weight = builder.emit(relax.op.permute_dims(w, AS_TORCH))
            result = builder.emit_output(build(builder.emit, x, weight))
        builder.emit_func_output(result)
    return builder.get()


def written_over(build: Build) -> tvm.IRModule:
    """Scheduled, with results over operands where that is possible."""
    scheduled = Pipeline(WEBGPU).run(function_of(build), until="check")
    return WriteOverOperands()(relax.transform.RewriteDataflowReshape()(scheduled))


def conv(x: relax.Expr, w: relax.Expr) -> relax.Expr:
    return relax.op.nn.conv2d(x, w, padding=1)


def residual_block(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    b = emit(conv(emit(conv(a, w)), w))
    return conv(emit(relax.op.add(b, a)), w)


def test_a_residual_is_added_in_place_and_the_device_computes_the_same(tmp_path: Path) -> None:
    after = written_over(residual_block)
    assert "relax.call_tir_inplace" in ops(after["main"])
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(PICTURE, dtype=np.float32), rng.standard_normal(WEIGHT, dtype=np.float32) / 12
    weight = torch.tensor(w.transpose(AS_TORCH)).double()
    a = F.conv2d(torch.tensor(x).double(), weight, padding=1)
    b = F.conv2d(F.conv2d(a, weight, padding=1), weight, padding=1)
    wanted = F.conv2d(b + a, weight, padding=1)
    np.testing.assert_allclose(run_module_on_webgpu(after, [x, w], tmp_path), wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_the_plan_holds_a_tensor_less() -> None:
    _, planned = count_launches_and_bytes(Pipeline(WEBGPU).run(function_of(residual_block)))
    assert planned == {"main": 3 * 2**14}  # a, which becomes the sum; what is between two convolutions; the result


def read_again(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    c = emit(relax.op.add(emit(conv(emit(conv(a, w)), w)), a))
    return relax.op.add(emit(conv(c, w)), a)


def read_again_as_a_view(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    view = emit(relax.op.reshape(a, (1, 16, 20, 12)))
    c = emit(relax.op.add(emit(conv(emit(conv(a, w)), w)), a))
    return relax.op.add(emit(conv(c, w)), emit(relax.op.reshape(emit(conv(view, w)), PICTURE)))


def the_callers_own(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    return conv(emit(relax.op.add(emit(conv(x, w)), x)), w)


def the_result(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    return relax.op.add(emit(conv(emit(conv(a, w)), w)), a)


def one_of_two_results(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    b = emit(conv(a, w))
    return relax.Tuple([emit(relax.op.add(emit(conv(b, w)), a)), b])


def read_with_its_neighbours(emit: Emit, x: relax.Var, w: relax.Var) -> relax.Expr:
    a = emit(conv(x, w))
    return conv(emit(relax.op.add(emit(conv(a, w)), a)), w)


@pytest.mark.parametrize(
    "build",
    [read_again, read_again_as_a_view, the_callers_own, the_result, one_of_two_results, read_with_its_neighbours],
)
def test_an_operand_that_is_needed_stays(build: Build) -> None:
    after = written_over(build)
    assert "relax.call_tir_inplace" not in ops(after["main"])


def test_a_sum_that_threads_share_is_not_written_over_an_operand() -> None:
    """All of them store the result: one would read the operand after another has written there."""
    builder = relax.BlockBuilder()
    x, w = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in (("x", (1, 512)), ("w", (512, 512))))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            a = builder.emit(relax.op.matmul(x, w))
            b = builder.emit(relax.op.matmul(relax.op.nn.relu(x), relax.op.permute_dims(w)))
            result = builder.emit_output(relax.op.matmul(relax.op.add(a, b), w))
        builder.emit_func_output(result)
    after = WriteOverOperands()(Pipeline(WEBGPU).run(builder.get(), until="check"))
    assert "relax.call_tir_inplace" not in ops(after["main"])
