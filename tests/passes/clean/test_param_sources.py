import pytest
import tvm
from tvm import relax

from mlc_controlnet.passes.clean.lay_out_weights import LAID_OUT, TRANSPOSED, LayOutWeights
from mlc_controlnet.passes.clean.pack_params import PackParams
from mlc_controlnet.passes.clean.param_sources import ParamSource, Run, join, param_sources, with_params
from mlc_controlnet.passes.clean.split_large_tables import SplitLargeTables


def embedded_tokens() -> tvm.IRModule:
    """A table of 14 x 8, then two linear layers of its rows, then a convolution of their product."""
    builder = relax.BlockBuilder()
    shapes = {"ids": (1, 9), "table": (14, 8), "w0": (6, 8), "w1": (6, 8), "kernel": (5, 9, 1, 1)}
    v = {n: relax.Var(n, relax.TensorType(s, "int32" if n == "ids" else "float32")) for n, s in shapes.items()}
    with builder.function("main", list(v.values()), attrs={"num_input": 1, "global_symbol": "main"}):
        with builder.dataflow():
            x = builder.emit(relax.op.take(v["table"], v["ids"], axis=0, mode="clip"))
            a, b = (builder.emit(relax.op.matmul(x, builder.emit(relax.op.permute_dims(v[w])))) for w in ("w0", "w1"))
            product = builder.emit(relax.op.reshape(builder.emit(relax.op.multiply(a, b)), (1, 9, 3, 2)))
            y = builder.emit_output(relax.op.nn.conv2d(product, v["kernel"]))
        builder.emit_func_output(y)
    return builder.get()


def test_before_any_pass_each_param_is_the_captured_one() -> None:
    sources = param_sources(embedded_tokens()["main"])
    assert sources == [ParamSource((Run(number),)) for number in range(4)]


def test_three_passes_rewrite_one_attribute_in_turn() -> None:
    after = LayOutWeights()(PackParams()(SplitLargeTables(largest_table=100)(embedded_tokens())))
    assert param_sources(after["main"]) == [
        ParamSource((Run(0, range(7)),)),
        ParamSource((Run(0, range(7, 14)),)),
        ParamSource((Run(1), Run(2)), tuple(TRANSPOSED)),
        ParamSource((Run(3),), tuple(LAID_OUT)),
    ]


def test_sources_survive_a_round_trip_through_the_attribute() -> None:
    function = embedded_tokens()["main"]
    sources = [
        ParamSource((Run(2, range(3, 5)), Run(0)), (1, 0)),
        ParamSource((Run(1),)),
        ParamSource((Run(3, range(1)),)),
        ParamSource((Run(3),), (3, 0, 1, 2)),
    ]
    params = dict(zip(function.params[1:], sources, strict=True))
    assert param_sources(with_params(function, function, params)) == sources


def test_rows_of_a_permuted_param_are_a_bug_of_a_pass() -> None:
    permuted = ParamSource((Run(0),)).permuted((1, 0))
    with pytest.raises(AssertionError):
        permuted.part(range(2))
    with pytest.raises(AssertionError):
        join([permuted, ParamSource((Run(1),))])
    with pytest.raises(AssertionError):
        permuted.permuted((1, 0))
