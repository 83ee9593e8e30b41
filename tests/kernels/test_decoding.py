from pathlib import Path

import pytest

from tests.kernels.execute_all import execute_all, schedule
from tests.passes.quantize.packed_model import packed_layers


@pytest.mark.parametrize(
    ("method", "bits", "kernels"),
    [
        ("linear", 8, ("decode_conv2d", "decode_gated", "decode_upsampled", "decode_NT_matmul")),
        ("palette", 6, ("decode_conv2d", "decode_upsampled", "decode_pointwise", "decode_NT_matmul")),
    ],
)
def test_kernels_that_decode_compute_what_their_definitions_say(
    method: str, bits: int, kernels: tuple[str, ...], tmp_path: Path
) -> None:
    scheduled = schedule(packed_layers(method, bits, "float32").module)
    outcomes = list(execute_all(scheduled, tmp_path, only=kernels))
    assert len(outcomes) == len(kernels)
    assert all(outcome.decibels is not None and outcome.passes("float32") for outcome in outcomes), outcomes
