"""Kernels in hand-written WGSL: what they compute on a software device, how they enter a library, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.bench.compilers.kernels import compile_kernels
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.hand_written import Tensor, hand_written
from tests.kernels.webgpu_device import build_wgsl, run_on_webgpu

TRANSPOSE = Path(__file__).with_name("transpose.wgsl").read_text()
# As another project would write it: vectors, other built-in values, a function, comments, bindings in another order.
SCALE_ROWS = """
enable f16;
@binding(1) @group(0) var<storage, read> factors: array<f16>; // one a row
@binding(0) @group(0) var<storage, read> rows: array<vec4<f16>>;
@binding(2) @group(0) var<storage, read_write> scaled: array<vec4<f16>>;
override width: u32;
/* A number of one row. */
fn scale(row: u32, place: u32) -> vec4<f16> { return rows[place] * factors[row]; }
@workgroup_size(32) @compute
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
  let place = id.y * (groups.x * 32u) + id.x;
  if (thread < 32u && id.x < width / 4u) { scaled[id.y * width / 4u + id.x] = scale(id.y, id.y * width / 4u + id.x); }
}
"""


def transpose(rows: int, columns: int) -> tvm.tirx.PrimFunc:
    return hand_written(
        TRANSPOSE,
        {"source": Tensor((rows, columns), "float32"), "turned": Tensor((columns, rows), "float32")},
        (-(-columns // 16), -(-rows // 16)),
        {"rows": rows, "columns": columns},
    )


def test_a_shader_of_tiles_computes_what_numpy_does(tmp_path: Path):
    source = np.random.default_rng(0).standard_normal((35, 50)).astype("float32")
    turned = np.full((50, 35), np.nan, "float32")
    run_on_webgpu([transpose(35, 50)], {"source": source}, {"turned": turned}, tmp_path)
    np.testing.assert_array_equal(turned, source.T)


def scale_rows(wgsl: str, dtype: str) -> tvm.tirx.PrimFunc:
    shapes = {"rows": (3, 40), "factors": (3,), "scaled": (3, 40)}
    return hand_written(wgsl, {name: Tensor(shape, dtype) for name, shape in shapes.items()}, (1, 3), {"width": 40})


def test_a_shader_of_another_hand_computes_what_numpy_does(tmp_path: Path):
    random = np.random.default_rng(0)
    rows, factors = (random.standard_normal(shape).astype("float32") for shape in ((3, 40), 3))
    scaled = np.full((3, 40), np.nan, "float32")
    kernel = scale_rows(SCALE_ROWS.replace("enable f16;", "").replace("f16", "f32"), "float32")
    run_on_webgpu([kernel], {"rows": rows, "factors": factors}, {"scaled": scaled}, tmp_path)
    np.testing.assert_array_equal(scaled, rows * factors[:, None])


def test_a_shader_in_float16_is_declared_as_its_author_did():
    wgsl = build_wgsl(scale_rows(SCALE_ROWS, "float16"))
    assert wgsl.count("enable f16;") == 1
    for tensor in ("read> rows_ptr : array<vec4<f16>>;", "read> factors_ptr : array<f16>;"):
        assert f"var<storage, {tensor}" in wgsl
    assert "var<storage, read_write> scaled_ptr : array<vec4<f16>>;" in wgsl
    assert "const width : u32 = 40u;" in wgsl
    assert "@compute @workgroup_size(32, 1, 1)" in wgsl


def test_the_kernel_enters_a_library_beside_tvms_own():
    x = relax.Var("x", relax.TensorType((48, 32), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            kernel = builder.add_func(transpose(48, 32), "transpose")
            turned = builder.emit(relax.call_tir(kernel, [x], relax.TensorType((32, 48), "float32")))
            result = builder.emit_output(relax.op.exp(turned))
        builder.emit_func_output(result)
    kernels = {kernel.name: kernel for kernel in compile_kernels(builder.get(), "float32")}
    assert len(kernels) == 2
    found = kernels["transpose_kernel"]
    assert "tile[thread.x * 17u + thread.y]" in found.wgsl and "const columns : u32 = 32u;" in found.wgsl
    assert (found.facts.threads, found.facts.workgroup_bytes, found.workgroups) == (256, 4 * 16 * 17, 6)


REFUSED = {
    "another feature": ("enable subgroups;\n" + TRANSPOSE, "enable subgroups"),
    "a uniform buffer": (TRANSPOSE + "@group(0) @binding(2) var<uniform> size : u32;\n", "var<uniform> size"),
    "two entry points": (TRANSPOSE + TRANSPOSE.split("// a column")[1].split("next\n")[1], "2 entry points"),
    "a built-in value of a draw": (TRANSPOSE.replace("workgroup_id", "subgroup_id"), "@builtin(subgroup_id)"),
    "other bindings": (TRANSPOSE.replace("turned", "result"), "bindings source, result"),
    "another dtype": (TRANSPOSE.replace("turned : array<f32>", "turned : array<f16>"), "turned of f16"),
    "a constant without a value": (TRANSPOSE + "override depth : u32;\n", "depth"),
    "memory of unknown size": (TRANSPOSE.replace("side * 17>", "sides * 17>"), "sides * 17"),
    "a name that reads as a part of a vector": (TRANSPOSE.replace("source", "x"), "binding x"),
}


@pytest.mark.parametrize(("wgsl", "got"), REFUSED.values(), ids=REFUSED)
def test_what_the_door_has_no_place_for_is_refused_by_name(wgsl: str, got: str):
    source = "x" if "array<f32>;" in wgsl and " x : " in wgsl else "source"
    tensors = {source: Tensor((48, 32), "float32"), "turned": Tensor((32, 48), "float32")}
    with pytest.raises(UserError) as caught:
        hand_written(wgsl, tensors, (2, 3), {"rows": 48, "columns": 32})
    assert got in caught.value.got
