import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from mlc_controlnet.passes.clean.lay_out_weights import AS_TORCH
from mlc_controlnet.passes.quantize.decoding_calls import emit_decoding
from mlc_controlnet.passes.replace.split_large_planes import PIECES, SplitLargePlanes
from mlc_controlnet.quantize.scheme import choose_scheme
from mlc_controlnet.quantize.weight import quantize
from tests.passes.evaluate import evaluate

EVERY_PLANE = SplitLargePlanes(large_plane=0)
SHAPES = {
    "y": (1, 4, 6, 10),
    "weight": (32, 4, 3, 3),
    "bias": (32,),
    "gamma": (32,),
    "beta": (32,),
    "weight_a": (6, 32, 3, 3),
    "weight_b": (6, 32, 1, 1),
}


def two_readers(dtype: str = "float32", groups: int = 16, silu: bool = True, others: bool = False) -> tvm.IRModule:
    """A plane of 32 channels that a normalizing and a plain convolution read, as in the VAE's residual block."""
    builder = relax.BlockBuilder()
    params = {name: relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in SHAPES.items()}
    y, weight, bias, gamma, beta, weight_a, weight_b = params.values()

    def convolve(x: relax.Expr, kernel: relax.Var, padding: int) -> relax.Var:
        sums = builder.emit(relax.op.nn.conv2d(x, kernel, padding=padding, out_dtype="float32"))
        return sums if dtype == "float32" else builder.emit(relax.op.astype(sums, dtype))

    with builder.function("main", [*params.values()]):
        with builder.dataflow():
            added = builder.emit(relax.op.reshape(bias, (1, 32, 1, 1)))
            x = builder.emit(relax.op.add(convolve(y, weight, 1), added))
            norm = builder.emit(relax.op.nn.group_norm(x, gamma, beta, groups, channel_axis=1, axes=[2, 3]))
            a = convolve(builder.emit(relax.op.nn.silu(norm)) if silu else norm, weight_a, 1)
            total = builder.emit(relax.op.add(a, convolve(x, weight_b, 0)))
            if others:
                total = builder.emit(relax.op.add(total, relax.op.mean(x)))
            result = builder.emit_output(total)
        builder.emit_func_output(result)
    return builder.get()


def planes(mod: tvm.IRModule) -> list[int]:
    """Channels of everything that is as high and wide as the plane, in the order in which it is computed."""
    shapes = [tuple(map(int, b.var.ty.shape)) for block in mod["main"].body.blocks for b in block.bindings]
    return [shape[1] for shape in shapes if len(shape) == 4 and shape[2:] == (6, 10)]


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-4), ("float16", 2e-2)])
def test_pieces_add_up_to_the_same(dtype: str, error: float, silu: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = [(rng.standard_normal(shape) / 2).astype(dtype) for shape in SHAPES.values()]
    before = two_readers(dtype, silu=silu)
    np.testing.assert_allclose(
        evaluate(EVERY_PLANE(before), *inputs), evaluate(before, *inputs), rtol=error, atol=error
    )


def test_no_more_than_a_piece_is_held_at_once() -> None:
    after = EVERY_PLANE(two_readers())
    assert set(planes(after)) == {32 // PIECES, 6}  # pieces and sums
    norms = [i for i, name in enumerate(calls(after)) if name == "relax.nn.group_norm"]
    shortcuts = [i for i, name in enumerate(calls(after)) if name == "relax.nn.conv2d"]
    assert len(norms) == PIECES
    assert len(shortcuts) == 3 * PIECES
    assert norms[1] > shortcuts[2], "the first piece's readers come before the second piece"


def calls(mod: tvm.IRModule) -> list[str]:
    values = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [value.op.name for value in values if isinstance(value, relax.Call)]


def test_what_is_made_of_pieces_is_whole() -> None:
    """`a` is as large as the plane that it is made of, and a convolution reads it."""
    builder = relax.BlockBuilder()
    shapes = {"y": (1, 8, 6, 10), "weight": (16, 8, 3, 3), "bias": (16,), "weight_a": (16, 16, 3, 3), "bias_a": (16,)}
    params = {name: relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()}
    y, weight, bias, weight_a, bias_a = params.values()
    with builder.function("main", [*params.values()]):
        with builder.dataflow():
            x = builder.emit(relax.op.nn.conv2d(y, weight, padding=1))
            x = builder.emit(relax.op.add(x, builder.emit(relax.op.reshape(bias, (1, 16, 1, 1)))))
            a = builder.emit(relax.op.nn.conv2d(x, weight_a, padding=1))
            a = builder.emit(relax.op.add(a, builder.emit(relax.op.reshape(bias_a, (1, 16, 1, 1)))))
            result = builder.emit_output(relax.op.nn.conv2d(a, weight_a, padding=1))
        builder.emit_func_output(result)
    before = builder.get()
    after = EVERY_PLANE(before)
    assert calls(after).count("relax.nn.conv2d") == 2 * PIECES + 1
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, dtype=np.float32) / 3 for shape in shapes.values()]
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(before, *inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("before", [two_readers(groups=4), two_readers(others=True)], ids=["groups", "a reader"])
def test_what_does_not_fall_into_pieces_stays(before: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(EVERY_PLANE(before), before)


def test_a_plane_that_can_be_bound_stays() -> None:
    before = two_readers()
    tvm.ir.assert_structural_equal(SplitLargePlanes()(before), before)


def test_a_packed_weight_that_is_read_after_the_plane_is_decoded_before_it() -> None:
    """As in a whole decoder, whose weights are read from a tuple and decoded where they are used."""
    rng = np.random.default_rng(0)
    scheme = choose_scheme("palette", 6, 32 * 3 * 3, 6)
    quantized = quantize(torch.from_numpy(rng.standard_normal((32, 3, 3, 6)).astype("float32")), scheme)
    builder = relax.BlockBuilder()
    shapes = {name: SHAPES[name] for name in ("y", "weight", "bias")}
    params = {name: relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items()}
    words = relax.Var("words", relax.TensorType(quantized.words.shape, "uint32"))
    table = relax.Var("table", relax.TensorType(quantized.table.shape, "float32"))
    y, weight, bias = params.values()
    with builder.function("main", [y, weight, bias, words, table]):
        with builder.dataflow():
            bundled = builder.emit(relax.Tuple([words, table]))
            added = builder.emit(relax.op.reshape(bias, (1, 32, 1, 1)))
            x = builder.emit(relax.op.add(builder.emit(relax.op.nn.conv2d(y, weight, padding=1)), added))
            parts = [builder.emit(relax.TupleGetItem(bundled, i)) for i in range(2)]
            decoded = builder.emit(emit_decoding(builder, *parts, scheme, (32, 3, 3, 6)))
            read = builder.emit(relax.op.permute_dims(decoded, AS_TORCH))
            result = builder.emit_output(relax.op.nn.conv2d(x, read, padding=1))
        builder.emit_func_output(result)
    before = builder.get()
    after = EVERY_PLANE(before)
    inputs = [(rng.standard_normal(shape) / 2).astype("float32") for shape in shapes.values()]
    inputs += [quantized.words, quantized.table.astype("float32")]
    assert calls(after).count("relax.nn.conv2d") == 2 * PIECES
    np.testing.assert_allclose(evaluate(after, *inputs), evaluate(before, *inputs), rtol=1e-4, atol=1e-4)
