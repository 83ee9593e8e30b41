import pytest

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.group_norm import group_norm
from mlc_controlnet.kernels.layer_norm import layer_norm
from mlc_controlnet.kernels.marks import mark_finished
from mlc_controlnet.kernels.normalization import GroupNorm
from tests.tuning.operations import ATTENTION, GROUP_NORM, LAYER_NORM, LLVM, make_linear


def test_a_finished_kernel_tells_what_it_was_asked_for() -> None:
    assert asked_for(flash_attention(ATTENTION, LLVM)) == ATTENTION
    assert asked_for(layer_norm(LAYER_NORM, LLVM)) == LAYER_NORM
    assert asked_for(group_norm(GROUP_NORM, LLVM).normalize) == GROUP_NORM


def test_a_part_of_an_operation_is_not_taken_for_all_of_it() -> None:
    kernels = group_norm(GroupNorm((1, 32, 4097), 1, 1e-5, "float32", True), LLVM)
    assert kernels.statistics is not None
    assert asked_for(kernels.statistics) is None and asked_for(kernels.normalize) is None


@pytest.mark.parametrize("text", ["transpose", "print('called')", "Attention(batch=open('x'))", ""])
def test_another_mark_is_no_description_and_nothing_of_it_runs(text: str) -> None:
    assert asked_for(mark_finished(make_linear(16)["NT_matmul"], text)) is None


def test_a_function_that_nobody_finished_was_asked_for_nothing() -> None:
    assert asked_for(make_linear(16)["NT_matmul"]) is None
