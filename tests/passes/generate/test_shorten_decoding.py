import re

import pytest
from tvm import relax

from mlc_controlnet.compile.library import generate_code, tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.generate.webgpu_code import shaders_of
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.quantize.decoding_calls import emit_decoding
from mlc_controlnet.quantize.scheme import LINEAR, PALETTE, choose_scheme

ROWS, DEPTH, COLUMNS = 64, 512, 64
BYTES = "(w & 255u), ((w>>8u) & 255u), ((w>>16u) & 255u), ((w>>24u) & 255u)"


def wgsl_of_product(method: str, bits: int, dtype: str) -> str:
    """The shader of a product with a packed weight."""
    scheme = choose_scheme(method, bits, DEPTH, COLUMNS)
    x = relax.Var("x", relax.TensorType((ROWS, DEPTH), dtype))
    words = relax.Var("words", relax.TensorType((scheme.words,), "uint32"))
    table = relax.Var("table", relax.TensorType(scheme.table_shape, dtype))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, words, table]):
        with builder.dataflow():
            weight = builder.emit(emit_decoding(builder, words, table, scheme, (DEPTH, COLUMNS)))
            product = builder.emit_output(relax.op.matmul(x, weight, out_dtype="float32"))
        builder.emit_func_output(product)
    module = relax.transform.LegalizeOps()(builder.get())
    target = tvm_target(TARGETS["webgpu"])
    library = generate_code(Pipeline(target).run(relax.transform.AnnotateTIROpPattern()(module)), target)
    (wgsl,) = dict(shaders_of(library.mod)).values()
    return wgsl


def words_of_codes(wgsl: str) -> int:
    assert "vec4<i32>(31i" not in wgsl  # shifts of vectors
    return len(re.findall(r"let w\w* : u32 = ", wgsl))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_vector_of_places_is_taken_out_of_one_word(dtype: str) -> None:
    wgsl = wgsl_of_product(PALETTE, 6, dtype)
    assert words_of_codes(wgsl) == 1
    assert wgsl.count("i32(b1_ptr[") == 2  # low 4 bits, high 2
    assert f"vec4<i32>(vec4<u32>({BYTES}))" in wgsl


@pytest.mark.parametrize(("bits", "middle"), [(8, "1.280000e+02"), (4, "8.000000e+00")])
@pytest.mark.parametrize(("dtype", "converted"), [("float16", "vec4<f16>("), ("float32", "")])
def test_codes_are_converted_before_the_middle_is_taken_from_them(
    bits: int, middle: str, dtype: str, converted: str
) -> None:
    """In float32, and only then to float16."""
    wgsl = wgsl_of_product(LINEAR, bits, dtype)
    assert words_of_codes(wgsl) == 1
    assert f"({converted}(vec4<f32>(vec4<u32>({BYTES})) - vec4<f32>({middle}f))" in wgsl
    assert "vec4<i32>" not in wgsl
