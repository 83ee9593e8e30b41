import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH, LAID_OUT, TRANSPOSED, LayOutWeights
from mlc_controlnet.passes.clean.param_sources import param_sources
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from tests.passes.evaluate import evaluate, ops


@I.ir_module
class Convolutions:
    """With a weight of its own, with one that is shared, with one that something else reads, and one with groups."""

    @R.function
    def main(
        x: R.Tensor((1, 4, 6, 10), "float32"),
        own: R.Tensor((8, 4, 3, 3), "float32"),
        shared: R.Tensor((8, 8, 1, 1), "float32"),
        read: R.Tensor((8, 8, 3, 3), "float32"),
        grouped: R.Tensor((8, 4, 3, 3), "float32"),
    ):
        R.func_attr({"global_symbol": "main", "num_input": 1})
        with R.dataflow():
            a = R.nn.conv2d(x, own, strides=[2, 2], padding=[1, 1, 1, 1])
            b = R.nn.conv2d(R.nn.conv2d(a, shared), shared)
            doubled = R.add(read, read)
            c = R.nn.conv2d(b, read, padding=[0, 1, 2, 0])
            d = R.nn.conv2d(c, R.add(doubled, read), padding=[1, 1, 1, 1])
            out = R.nn.conv2d(d, grouped, groups=2, padding=[1, 1, 1, 1])
            R.output(out)
        return out


def random_inputs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    params = Convolutions["main"].params
    return [rng.standard_normal([int(d) for d in p.ty.shape], dtype=np.float32) for p in params]


def test_weights_that_only_convolutions_read_lie_with_their_channels_innermost() -> None:
    main = LayOutWeights()(Convolutions)["main"]
    assert [source.axes for source in param_sources(main)] == [tuple(LAID_OUT), tuple(LAID_OUT), (), ()]
    assert [tuple(map(int, p.ty.shape)) for p in main.params[1:3]] == [(4, 3, 3, 8), (8, 1, 1, 8)]


def test_the_function_computes_the_same_from_the_permuted_params() -> None:
    x, own, shared, *others = random_inputs()
    wanted = evaluate(Convolutions, x, own, shared, *others)
    after = LayOutWeights()(Convolutions)
    inputs = (x, own.transpose(LAID_OUT), shared.transpose(LAID_OUT), *others)
    np.testing.assert_allclose(evaluate(after, *inputs), wanted, rtol=1e-4, atol=1e-4)
    direct = UseDirectConv2d()(after)
    np.testing.assert_allclose(evaluate(direct, *inputs), wanted, rtol=1e-4, atol=1e-4)


def test_what_lies_as_it_is_read_is_not_permuted_again() -> None:
    @I.ir_module
    class Before:
        @R.function
        def main(x: R.Tensor((1, 4, 6, 10), "float32"), w: R.Tensor((8, 4, 3, 3), "float32")):
            R.func_attr({"global_symbol": "main", "num_input": 1})
            with R.dataflow():
                out = R.nn.conv2d(x, w)
                R.output(out)
            return out

    after = UseDirectConv2d()(LayOutWeights()(Before))
    assert ops(after["main"]) == {"relax.call_tir"}


def test_convolutions_with_groups_are_left_to_tvm() -> None:
    assert "relax.nn.conv2d" in ops(UseDirectConv2d()(Convolutions)["main"])


@I.ir_module
class LinearLayers:
    """Of many rows; of few; one weight for both; and one that something else reads."""

    @R.function
    def main(
        x: R.Tensor((1, 12, 20), "float32"),
        v: R.Tensor((1, 20), "float32"),
        many: R.Tensor((16, 20), "float32"),
        few: R.Tensor((16, 20), "float32"),
        both: R.Tensor((16, 20), "float32"),
        read: R.Tensor((16, 20), "float32"),
    ):
        R.func_attr({"global_symbol": "main", "num_input": 2})
        with R.dataflow():
            a = R.matmul(x, R.permute_dims(many))
            b = R.matmul(v, R.permute_dims(few))
            shared = R.permute_dims(both)
            c = R.add(R.matmul(x, shared), R.matmul(v, shared))
            d = R.matmul(x, R.permute_dims(read))
            e = R.sum(read, axis=[1])
            out = R.add(R.add(R.add(a, b), R.add(c, d)), e)
            R.output(out)
        return out


def _permuted_params(mod: tvm.IRModule) -> list[str]:
    """The names of the params that a permute_dims reads, in order."""
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [value.args[0].name for value in values if is_call(value, "relax.permute_dims")]


def test_a_linear_layer_of_many_rows_has_its_outputs_innermost_and_needs_no_permutation() -> None:
    before = relax.transform.Normalize()(LinearLayers)
    after = LayOutWeights()(before)
    assert [source.axes for source in param_sources(after["main"])] == [tuple(TRANSPOSED), (), (), ()]
    assert _permuted_params(before) == ["many", "few", "both", "read"]
    assert _permuted_params(after) == ["few", "both", "read"]
    rng = np.random.default_rng(0)
    x, v, many, *others = (
        rng.standard_normal([int(d) for d in p.ty.shape], dtype=np.float32) for p in before["main"].params
    )
    wanted = evaluate(before, x, v, many, *others)
    np.testing.assert_allclose(evaluate(after, x, v, many.T, *others), wanted, rtol=1e-4, atol=1e-4)


def test_the_two_permutations_cancel() -> None:
    assert [LAID_OUT[axis] for axis in AS_TORCH] == [0, 1, 2, 3]


def test_the_callers_module_stays_as_it_was() -> None:
    before = tvm.ir.load_json(tvm.ir.save_json(Convolutions))
    LayOutWeights()(Convolutions)
    tvm.ir.assert_structural_equal(Convolutions, before)


def test_a_weight_that_one_function_cannot_read_so_keeps_its_layout_in_all() -> None:
    """The same layers for eight rows, where the weight would be transposed, and for one row."""
    builder = relax.BlockBuilder()
    for name, rows in (("large", 8), ("small", 1)):
        x = relax.Var("x", relax.TensorType((1, rows, 6), "float32"))
        image = relax.Var("image", relax.TensorType((1, 6, rows, 3), "float32"))
        linear = relax.Var("linear", relax.TensorType((4, 6), "float32"))
        conv = relax.Var("conv", relax.TensorType((4, 6, 1, 1), "float32"))
        attributes = {"global_symbol": name, "num_input": 2, "tensors": ["unet.linear", "unet.conv"]}
        with builder.function(name, [x, image, linear, conv], attrs=attributes):
            with builder.dataflow():
                product = builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(linear))))
                out = builder.emit_output(relax.Tuple([product, builder.emit(relax.op.nn.conv2d(image, conv))]))
            builder.emit_func_output(out)
    module = builder.get()
    alone = LayOutWeights()(tvm.IRModule({"large": module["large"]}))
    assert [source.axes for source in param_sources(alone["large"])] == [tuple(TRANSPOSED), tuple(LAID_OUT)]
    both = LayOutWeights()(module)
    for name in ("large", "small"):
        assert [source.axes for source in param_sources(both[name])] == [(), tuple(LAID_OUT)]
