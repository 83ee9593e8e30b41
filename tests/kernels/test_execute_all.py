import math
from dataclasses import replace
from pathlib import Path

import tvm

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.group_norm import group_norm, group_norm_coefficients
from mlc_controlnet.kernels.layer_norm import layer_norm
from mlc_controlnet.kernels.normalization import GroupNorm, LayerNorm
from mlc_controlnet.kernels.softmax_gpu import softmax
from mlc_controlnet.passes.pipeline import clean
from mlc_controlnet.passes.schedule.schedule_for_gpu import ScheduleForGPU
from mlc_controlnet.passes.schedule.share_kernels import ShareKernels
from tests.kernels.execute_all import Outcome, Scheduled, execute_all, prim_funcs, schedule
from tests.kernels.webgpu_device import WEBGPU
from tests.passes.schedule.test_share_kernels import TwoRows


def test_every_kernel_of_a_component_computes_what_its_definition_says(checkpoint: Checkpoint, tmp_path: Path) -> None:
    alone = replace(checkpoint, components=("control_embedding",))
    scheduled = schedule(clean(capture(alone, "float32")).module)
    outcomes = list(execute_all(scheduled, tmp_path))
    assert len(outcomes) > 4
    assert not list(execute_all(scheduled, tmp_path, known=[outcome.name for outcome in outcomes]))
    assert all(outcome.passes("float32") for outcome in outcomes), "\n".join(map(str, outcomes))


def test_a_kernel_that_replaces_several_is_compared_with_the_first_of_them(tmp_path: Path) -> None:
    with WEBGPU:
        kernels = prim_funcs(ShareKernels()(ScheduleForGPU()(TwoRows.clone())))
    outcomes = list(execute_all(Scheduled(prim_funcs(TwoRows), kernels), tmp_path))
    assert [outcome.name for outcome in outcomes] in (["add_of_241", "elsewhere"], ["add_of_401", "elsewhere"])
    assert all(outcome.decibels > 120 for outcome in outcomes)


def test_a_kernel_that_differs_or_is_not_finite_fails() -> None:
    assert not Outcome("add", (2,), 59.9, by_hand=False).passes("float32")
    assert not Outcome("softmax", (2,), -math.inf, by_hand=True).passes("float16")


def test_a_kernel_written_by_hand_computes_what_torch_does(tmp_path: Path) -> None:
    norm = GroupNorm((1, 12, 80, 33), 3, 1e-5, "float32", silu=True)
    made, folded = group_norm(norm, WEBGPU), group_norm_coefficients(norm)
    kernels = {
        "statistics": made.statistics,
        "normalize": made.normalize,
        "coefficients": folded.coefficients,
        "layer_norm": layer_norm(LayerNorm((1, 9, 40), 1e-5, "float32"), WEBGPU),
        "softmax": softmax((1, 7, 36), 0.25),
        "attention": flash_attention(Attention(1, 20, 33, 2, 16, "float32", 0.25, layout="shared"), WEBGPU),
    }
    module = tvm.IRModule({tvm.ir.GlobalVar(name): kernel for name, kernel in kernels.items()})
    outcomes = list(execute_all(Scheduled(tvm.IRModule(), module), tmp_path))
    assert all(outcome.by_hand and outcome.decibels > 100 for outcome in outcomes), "\n".join(map(str, outcomes))


def test_a_kernel_written_by_hand_that_computes_something_else_is_found(tmp_path: Path) -> None:
    norm = LayerNorm((1, 9, 40), 1e-5, "float32")
    wrong = layer_norm(replace(norm, epsilon=1.0), WEBGPU).with_attr("computes", str(norm))
    (outcome,) = execute_all(Scheduled(tvm.IRModule(), tvm.IRModule({tvm.ir.GlobalVar("wrong"): wrong})), tmp_path)
    assert not outcome.passes("float32")
