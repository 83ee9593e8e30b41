import re

from mlc_controlnet.compile.library import generate_code, tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.passes.generate.webgpu_code import shaders_of
from mlc_controlnet.passes.pipeline import Pipeline
from tests.passes.lower.test_fuse_decoding import layers


def test_a_word_is_read_once_for_its_vector_of_codes() -> None:
    target = tvm_target(TARGETS["webgpu"])
    library = generate_code(Pipeline(target).run(layers()), target)
    wgsl = dict(shaders_of(library.mod))["fused_decode_matmul_kernel"]
    assert len(re.findall(r"let w\w* : i32 = \(?\(i32\(b1_ptr\[", wgsl)) == 2  # low 4 bits, high 2
    assert wgsl.count("i32(b1_ptr[") == 2
    assert "((w>>4u) & 15i)" in wgsl and "((w_1>>2u) & 48i)" in wgsl
    assert "vec4<i32>(31i" not in wgsl
