import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.passes.clean.pack_params import PackParams
from mlc_controlnet.passes.clean.param_sources import ParamSource, Run, param_sources
from tests.passes.evaluate import evaluate, ops

AS_BEFORE = [ParamSource((Run(number),)) for number in range(4)]


@I.ir_module
class TwoOfOneInput:
    """Two layers with a cast and a bias read x, a third reads what the first one gives."""

    @R.function
    def main(
        x: R.Tensor((1, 5, 6), "float16"),
        v: R.Tensor((4, 4), "float16"),
        w0: R.Tensor((4, 6), "float16"),
        b0: R.Tensor((4,), "float16"),
        w1: R.Tensor((3, 6), "float16"),
        b1: R.Tensor((3,), "float16"),
    ):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            t0 = R.permute_dims(w0)
            m0 = R.matmul(x, t0, out_dtype="float32")
            c0 = R.astype(m0, "float16")
            y0 = R.add(c0, b0)
            t2 = R.permute_dims(v)
            m2 = R.matmul(y0, t2, out_dtype="float32")
            t1 = R.permute_dims(w1)
            m1 = R.matmul(x, t1, out_dtype="float32")
            c1 = R.astype(m1, "float16")
            y1 = R.add(c1, b1)
            y1_wide = R.astype(y1, "float32")
            out = R.concat([m2, y1_wide], axis=2)
            R.output(out)
        return out


@I.ir_module
class Packed:
    @R.function
    def main(
        x: R.Tensor((1, 5, 6), "float16"),
        v: R.Tensor((4, 4), "float16"),
        w0: R.Tensor((7, 6), "float16"),
        b0: R.Tensor((7,), "float16"),
    ):
        R.func_attr(
            {
                "num_input": 1,
                "param_sources": [[[], [0, 0, -1]], [[], [1, 0, -1], [3, 0, -1]], [[], [2, 0, -1], [4, 0, -1]]],
            }
        )
        with R.dataflow():
            t = R.permute_dims(w0)
            m = R.matmul(x, t, out_dtype="float32")
            c = R.astype(m, "float16")
            y = R.add(c, b0)
            y0 = R.strided_slice(y, axes=[2], begin=[0], end=[4])
            t2 = R.permute_dims(v)
            m2 = R.matmul(y0, t2, out_dtype="float32")
            y1 = R.strided_slice(y, axes=[2], begin=[4], end=[7])
            y1_wide = R.astype(y1, "float32")
            out = R.concat([m2, y1_wide], axis=2)
            R.output(out)
        return out


def test_two_layers_of_one_input_become_one() -> None:
    tvm.ir.assert_structural_equal(PackParams()(TwoOfOneInput), Packed)


def test_it_computes_what_the_layers_did() -> None:
    rng = np.random.default_rng(0)
    x, v, w0, b0, w1, b1 = (
        rng.standard_normal([int(d) for d in p.ty.shape]).astype(np.float16) for p in TwoOfOneInput["main"].params
    )
    after = PackParams()(TwoOfOneInput)
    got = evaluate(after, x, v, np.concatenate([w0, w1]), np.concatenate([b0, b1]))
    np.testing.assert_array_equal(got, evaluate(TwoOfOneInput, x, v, w0, b0, w1, b1))


def layers(second_input: str = "x", second_bias: bool = True, shared_weight: bool = False) -> tvm.IRModule:
    """Two linear layers that can be packed but for what the arguments say."""
    builder = relax.BlockBuilder()
    shapes = {"x": (1, 5, 6), "other": (1, 5, 6), "w0": (4, 6), "w1": (4, 6), "b0": (4,), "b1": (4,)}
    x = {name: relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()}
    with builder.function("main", list(x.values()), attrs={"num_input": 2}):
        with builder.dataflow():
            emit, op = builder.emit, relax.op
            t0 = emit(op.permute_dims(x["w0"]))
            t1 = t0 if shared_weight else emit(op.permute_dims(x["w1"]))
            y0 = emit(op.add(emit(op.matmul(x["x"], t0)), x["b0"]))
            y1 = emit(op.matmul(x[second_input], t1))
            y1 = emit(op.add(y1, x["b1"])) if second_bias else y1
            out = builder.emit_output(op.multiply(y0, y1))
        builder.emit_func_output(out)
    return builder.get()


def test_the_layers_of_the_tests_that_follow_can_be_packed() -> None:
    assert "relax.strided_slice" in ops(PackParams()(layers())["main"])


@pytest.mark.parametrize("change", [{"second_input": "other"}, {"second_bias": False}, {"shared_weight": True}])
def test_layers_that_differ_or_share_a_weight_stay(change: dict) -> None:
    before = layers(**change)
    after = PackParams()(before)["main"]
    assert param_sources(after) == AS_BEFORE
    tvm.ir.assert_structural_equal(after.without_attr("param_sources"), before["main"])


def test_no_weight_outgrows_a_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlc_controlnet.passes.clean.pack_params.LARGEST_WEIGHT", 47)
    assert param_sources(PackParams()(layers())["main"]) == AS_BEFORE


def test_a_cleaned_models_params_fit_its_functions(cleaned: CapturedModel, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors()
    for name, params in cleaned.params.items():
        weights = cleaned.module[name].params[-1].ty.fields
        assert [tuple(param.read(tensors).shape) for param in params] == [tuple(map(int, w.shape)) for w in weights]
    read = [rows for params in cleaned.params.values() for param in params for rows in param.rows]
    assert all(rows.are_all for rows in read)
    assert sorted(rows.tensor for rows in read) == sorted(tensors)


def test_all_cross_attentions_and_all_time_projections_of_the_unet_are_one_product_each(
    captured: CapturedModel, cleaned: CapturedModel
) -> None:
    unet = [[rows.tensor for rows in param.rows] for param in cleaned.params["unet"]]
    every = [param.name for param in captured.params["unet"]]
    for part in ("attn2.to_k", "time_emb_proj.weight", "time_emb_proj.bias"):
        (packed,) = [names for names in unet if any(part in name for name in names)]
        assert {name for name in every if part in name} <= set(packed)
    selves = [names for names in unet if any("attn1.to_q" in name for name in names)]
    assert all([name.rsplit(".", 2)[1] for name in names] == ["to_q", "to_k", "to_v"] for names in selves)


def test_functions_that_share_some_tensors_share_the_packed_params_of_those() -> None:
    """deep reads three layers of one input, shallow the first two of them: these are packed without the third."""
    builder = relax.BlockBuilder()
    for name, count in (("deep", 3), ("shallow", 2)):
        x = relax.Var("x", relax.TensorType((1, 5, 6), "float32"))
        weights = [relax.Var(f"w{i}", relax.TensorType((4, 6), "float32")) for i in range(count)]
        attributes = {"global_symbol": name, "num_input": 1, "tensors": [f"unet.{i}" for i in range(count)]}
        with builder.function(name, [x, *weights], attrs=attributes):
            with builder.dataflow():
                outputs = [
                    builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(weight)))) for weight in weights
                ]
                out = builder.emit_output(relax.op.concat(outputs, axis=2))
            builder.emit_func_output(out)
    after = PackParams()(builder.get())
    pair = ParamSource((Run(0), Run(1)))
    assert param_sources(after["deep"]) == [pair, ParamSource((Run(2),))]
    assert param_sources(after["shallow"]) == [pair]
