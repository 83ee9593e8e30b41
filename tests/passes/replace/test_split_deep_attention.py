from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from mlc_controlnet.kernels.workgroups import WORKGROUP_BYTES
from mlc_controlnet.passes.check.check_webgpu_limits import measure_requirements
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.plan.write_over_operands import WriteOverOperands
from mlc_controlnet.passes.replace.split_deep_attention import SplitDeepAttention
from tests.kernels.webgpu_device import WEBGPU
from tests.kernels.webgpu_module import run_module_on_webgpu
from tests.passes.evaluate import ops

TOKENS, DEPTH = 48, 512  # tokens that a tile of our own products divides


def attend(
    dtype: str = "float32",
    heads: int = 1,
    depth: int = DEPTH,
    tokens: int = TOKENS,
    bias: bool = False,
    **attrs: object,
) -> tvm.IRModule:
    """q, k and v lie side by side in the rows of one tensor, as the VAE's packed projection leaves them."""
    width = heads * depth
    builder = relax.BlockBuilder()
    qkv = relax.Var("qkv", relax.TensorType((1, tokens, 3 * width), dtype))
    with builder.function("main", [qkv]):
        with builder.dataflow():
            rows = [
                builder.emit(relax.op.strided_slice(qkv, [2], [first], [first + width]))
                for first in (0, width, 2 * width)
            ]
            if bias:
                attrs["bias"] = builder.emit(relax.op.zeros((1, heads, tokens, tokens), dtype))
            parts = [builder.emit(relax.op.reshape(row, (1, tokens, heads, depth))) for row in rows]
            result = builder.emit_output(relax.op.nn.attention(*parts, **attrs))
        builder.emit_func_output(result)
    return builder.get()


def test_the_split_attends_as_torch_does(tmp_path: Path) -> None:
    qkv = np.random.default_rng(0).standard_normal((1, TOKENS, 3 * DEPTH)).astype("float32")
    assert "relax.nn.attention" not in ops(SplitDeepAttention()(attend())["main"])
    scheduled = WriteOverOperands()(Pipeline(WEBGPU).run(attend(), until="schedule"))
    assert "relax.call_tir_inplace" in ops(scheduled["main"]), "the weights take their scores' place"
    q, k, v = torch.tensor(qkv).double().split(DEPTH, dim=2)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v).numpy()[:, :, None]
    np.testing.assert_allclose(run_module_on_webgpu(scheduled, [qkv], tmp_path), wanted, rtol=1e-4, atol=1e-5)


def test_operands_that_lie_apart_with_a_scale_of_their_own(tmp_path: Path) -> None:
    builder = relax.BlockBuilder()
    shapes = {"q": (2, 48, 1, DEPTH), "k": (2, 32, 1, DEPTH), "v": (2, 32, 1, DEPTH)}
    params = [relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()]
    with builder.function("main", params):
        with builder.dataflow():
            attention = relax.op.nn.attention(*params, scale=tvm.tirx.FloatImm("float32", 0.1))
            result = builder.emit_output(attention)
        builder.emit_func_output(result)
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal(shape).astype("float32") for shape in shapes.values())
    scheduled = WriteOverOperands()(Pipeline(WEBGPU).run(builder.get(), until="schedule"))
    scores = 0.1 * np.einsum("bihd,bjhd->bij", q.astype(float), k.astype(float))
    wanted = torch.softmax(torch.tensor(scores), dim=-1).numpy() @ v[:, :, 0].astype(float)
    np.testing.assert_allclose(
        run_module_on_webgpu(scheduled, [q, k, v], tmp_path), wanted[:, :, None], rtol=1e-4, atol=1e-5
    )


def test_operands_are_read_where_they_lie() -> None:
    assert "relax.strided_slice" not in ops(SplitDeepAttention()(attend())["main"])


def test_products_and_softmax_are_three_kernels_within_webgpus_limits() -> None:
    compiled = Pipeline(WEBGPU).run(attend(tokens=1024), until="check")
    needs = measure_requirements(compiled)
    assert needs.limits["maxComputeWorkgroupStorageSize"] <= WORKGROUP_BYTES
    kernels = [
        name.name_hint for name, function in compiled.functions_items() if isinstance(function, tvm.tirx.PrimFunc)
    ]
    assert len([name for name in kernels if "reshape" not in name]) == 3


@pytest.mark.parametrize(
    "others",
    [
        {"dtype": "float16"},
        {"heads": 2},
        {"depth": 160},
        {"causal_mask": "TopLeft"},
        {"bias": True},
        {"tokens": 4608},
    ],
    ids=str,
)
def test_what_flash_attention_does_better_or_scores_too_large_are_left_alone(others: dict[str, Any]) -> None:
    before = attend(**others)
    tvm.ir.assert_structural_equal(SplitDeepAttention()(before), before)
