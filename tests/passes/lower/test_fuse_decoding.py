"""Packed weights become a part of the kernels that read them."""

import tvm
from tvm import relax, tirx

from mlc_controlnet.passes.lower.fuse_decoding import FuseDecoding
from mlc_controlnet.passes.quantize.decoding_calls import emit_decoding
from mlc_controlnet.quantize.scheme import choose_scheme

LAYERS = 3
WIDTH = 32


def layers() -> tvm.IRModule:
    """Packed linear layers of one shape, one after another; the result of each is an output of the block."""
    scheme = choose_scheme("palette", 6, WIDTH, WIDTH)
    x = relax.Var("x", relax.TensorType((WIDTH, WIDTH), "float32"))
    words = [relax.Var(f"words{i}", relax.TensorType((scheme.words,), "uint32")) for i in range(LAYERS)]
    tables = [relax.Var(f"table{i}", relax.TensorType(scheme.table_shape, "float32")) for i in range(LAYERS)]
    builder = relax.BlockBuilder()
    with builder.function("main", [x, *words, *tables]):
        with builder.dataflow():
            y = x
            for own in zip(words, tables, strict=True):
                weight = builder.emit(emit_decoding(builder, *own, scheme, (WIDTH, WIDTH)))
                y = builder.emit_output(relax.op.matmul(y, weight))
        builder.emit_func_output(y)
    return relax.transform.AnnotateTIROpPattern()(relax.transform.LegalizeOps()(builder.get()))


def test_equal_layers_share_one_kernel_that_decodes() -> None:
    after = relax.transform.DeadCodeElimination()(FuseDecoding()(layers()))
    kernels = [function for function in after.functions.values() if isinstance(function, tirx.PrimFunc)]
    calls = [binding.value for block in after["main"].body.blocks for binding in block.bindings]
    assert len(kernels) == 1
    assert [len(call.args[1].fields) for call in calls] == [3] * LAYERS  # x, words and table


def test_outputs_of_a_block_stay_its_outputs() -> None:
    """FuseOps fuses nothing across them, and so the pieces of a large plane are not all kept at once."""
    after = FuseDecoding()(layers())
    variables = [binding.var for block in after["main"].body.blocks for binding in block.bindings]
    assert sum(not isinstance(var, relax.DataflowVar) for var in variables) == LAYERS
