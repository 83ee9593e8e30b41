import pytest
import torch

from mlc_controlnet.bench.operations.operations import OPERATIONS, Operation
from mlc_controlnet.bench.operations.work import count_work

# Two operations a multiply-add. Sizes that are not reduced: Stable Diffusion 1.5's.
GFLOP = {
    "conv3x3_320_320_64": 2 * 9 * 320 * 320 * 64 * 64,
    "conv3x3_320_320_64_s2": 2 * 9 * 320 * 320 * 32 * 32,
    "conv1x1_640_320_64": 2 * 640 * 320 * 64 * 64,
    "upsample_conv3x3_640_32": 2 * 9 * 640 * 640 * 64 * 64,
    "matmul_77_768_1280": 2 * 77 * 768 * 1280,
    "geglu_4096_320": 2 * 4096 * 320 * 2 * 1280,
    "attention_self_d40_4096": 4 * 4096 * 4096 * 8 * 40,
    "attention_cross_d160_256": 4 * 256 * 77 * 8 * 160,
    "group_norm_silu_320_64": 12 * 320 * 64 * 64,
    "layer_norm_4096_320": 8 * 4096 * 320,
}


def operation(name: str) -> Operation:
    return next(operation for operation in OPERATIONS if operation.name == name)


@pytest.mark.parametrize("name", GFLOP)
def test_arithmetic_is_counted_as_on_paper(name: str):
    row = operation(name)
    inputs = [torch.empty(shape, device="meta") for shape in row.shapes(row.size)]
    assert count_work(row.make(), inputs, row.flops_per_element).gflop == GFLOP[name] / 1e9


def test_memory_is_inputs_weights_and_outputs_once():
    inputs = [torch.empty(1, 10, 6, dtype=torch.float16)]
    megabytes = count_work(torch.nn.Linear(6, 8).half(), inputs).megabytes
    assert megabytes == 2 * (10 * 6 + 6 * 8 + 8 + 10 * 8) / 1e6


def test_every_operation_has_a_name_of_its_own():
    assert len({row.name for row in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_a_reduced_operation_is_small_enough_for_a_software_adapter(row: Operation):
    with torch.device("meta"):
        work = count_work(row.make(), [torch.empty(shape) for shape in row.shapes(row.reduced_size)])
    assert row.reduced_size <= row.size
    assert work.gflop < 2
