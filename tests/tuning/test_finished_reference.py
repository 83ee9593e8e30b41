"""The references of finished kernels against torch."""

import dataclasses

import numpy as np
import pytest

from mlc_controlnet.kernels.asked_for import Asked
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.tuning.finished_reference import compute
from tests.kernels.torch_references import example_of
from tests.tuning.operations import ATTENTION, GROUP_NORM, LAYER_NORM

APART = Attention(2, 20, 33, 2, 8, "float32", 0.3)
CASES = {
    "attention in one tensor": ATTENTION,
    "cross attention": APART,
    "mask": dataclasses.replace(APART, bias_shape=(2, 1, 1, 33)),
    "causal from the first key": dataclasses.replace(APART, causal="TopLeft"),
    "causal to the last key": dataclasses.replace(APART, causal="BottomRight"),
    "group norm": GROUP_NORM,
    "group norm without silu": dataclasses.replace(GROUP_NORM, silu=False),
    "layer norm": LAYER_NORM,
}


@pytest.mark.parametrize("asked", CASES.values(), ids=CASES)
def test_a_finished_kernels_reference_is_what_torch_computes(asked: Asked) -> None:
    example = example_of(str(asked))
    got = compute(asked, example.arguments)
    known = ~np.isnan(got)
    assert known.mean() > 0.3
    np.testing.assert_allclose(got[known], example.want[known], rtol=1e-9, atol=1e-12)
