"""The hand-written product of matrix instructions: its numbers, what AMD's compiler makes of it, what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.bench.compilers import measure as measuring
from mlc_controlnet.bench.compilers.amd import mesa_version
from mlc_controlnet.bench.compilers.chips import W7900
from mlc_controlnet.bench.compilers.matrix_product import SHADER, judge_matrix_products
from mlc_controlnet.cli.main import main
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.hand_written import Tensor, hand_written
from tests.kernels.webgpu_device import run_on_webgpu

# What matrix instructions do, on an adapter that has none: a thread of 64 has four neighbours in a row of the sum, and
# an operand is the place of its first vector and the step to the next row, or column, in its tile.
INSTEAD = """
alias Left = vec2<u32>;
alias Right = vec2<u32>;
alias Sum = vec4<f32>;
var<private> number : u32;
fn load_left_tile(first : u32, stride : u32) -> Left { return Left(first, stride); }
fn load_right_tile(first : u32, stride : u32) -> Right { return Right(first, stride); }
fn multiply_add(left_at : Left, right_at : Right, sum : Sum) -> Sum {
  let row = left_at.x + number / 4u * left_at.y;
  let column = right_at.x + number % 4u * 4u * right_at.y;
  var more = sum;
  for (var k = 0u; k < 4u; k++) {
    let turned = transpose(mat4x4<f32>(right_tile[column + k], right_tile[column + right_at.y + k],
      right_tile[column + 2u * right_at.y + k], right_tile[column + 3u * right_at.y + k]));
    more += turned * left_tile[row + k];
  }
  return more;
}
fn store_sums(first : u32, sum : Sum, stride : u32) {
  let at = first + number / 4u * stride + number % 4u * 4u;
  sums[at] = sum.x; sums[at + 1u] = sum.y; sums[at + 2u] = sum.z; sums[at + 3u] = sum.w;
}
"""


def without_matrix_instructions(wgsl: str) -> str:
    wgsl = re.sub(r"//[^\n]*|enable [^;]*;|diagnostic\([^;]*;|alias [^;]*;", "", wgsl)
    wgsl = re.sub(r"subgroupMatrixLoad<\w+, \w+>\(&(\w+), ", r"load_\1(", wgsl)
    wgsl = re.sub(r"subgroupMatrixStore<row_major>\(&(\w+), ", r"store_\1(", wgsl)
    wgsl = wgsl.replace("subgroupMatrixMultiplyAccumulate", "multiply_add").replace("f16", "f32")
    wgsl = re.sub(r",\s*@builtin\(subgroup_id\)[^)]*@builtin\(subgroup_invocation_id\)[^)]*\) \{", ") {", wgsl)
    first = "let subgroup = thread / 64u;\n  let lane = thread % 64u;\n  number = lane;"
    before, begin, after = wgsl.partition("  let row = group.y")
    before, entry, parameters = before.partition("@compute")
    return f"{before}{INSTEAD}{entry}{parameters}  {first}\n{begin}{after}"


def test_the_product_is_numpys_where_tiles_are_cut_off_too(tmp_path: Path):
    rows, depth, columns = 70, 64, 128
    random = np.random.default_rng(0)
    left, right, bias = (
        random.standard_normal(s).astype("float32") for s in ((rows, depth), (depth, columns), columns)
    )
    shapes = {"left": left.shape, "right": right.shape, "bias": bias.shape, "product": (rows, columns)}
    kernel = hand_written(
        without_matrix_instructions(SHADER.read_text(encoding="utf-8")),
        {name: Tensor(shape, "float32") for name, shape in shapes.items()},
        (columns // 64, -(-rows // 64)),
        {"rows": rows, "depth": depth, "columns": columns},
    )
    product = np.full((rows, columns), np.nan, "float32")
    run_on_webgpu([kernel], {"left": left, "right": right, "bias": bias}, {"product": product}, tmp_path)
    np.testing.assert_allclose(product, left @ right + bias, atol=1e-4)


@pytest.mark.integration
def test_amds_compiler_makes_matrix_instructions_of_it():
    try:
        mesa_version(W7900)
        ((chip, judgement),) = judge_matrix_products(("matmul_4096_320_320",), [W7900])
    except UserError as error:
        pytest.skip(str(error))
    assert not judgement.errors
    (kernel,) = judgement.kernels
    assert kernel.spilled == 0
    assert kernel.multiply_adds == judgement.multiply_adds  # no other instruction multiplies
    assert chip.teraflops == {"float16": 122.6}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--peer"], "got --peer, wanted matrix products in float16; leave out one of them"),
        (["--step"], "got --step, wanted matrix products in float16; leave out one of them"),
        (["--dtype", "float32"], "got --dtype float32, wanted matrix products in float16; leave out one of them"),
        (["--chip", "navi21"], "got navi21, wanted a chip that has them in WGSL: navi31; leave out this chip"),
    ],
)
def test_what_has_no_matrix_instructions_is_refused_in_a_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["bench", "compilers", "--matrix-instructions", *options]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error == f"error: --matrix-instructions: {told}"


def test_an_operation_that_is_no_product_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(measuring, "mesa_version", lambda _chip: "25.0.7")
    assert main(["bench", "compilers", "--matrix-instructions", "--only", "conv3x3_320_320_64"]) == 2
    assert "--only: got conv3x3_320_320_64, wanted a part of a matrix product's name" in capsys.readouterr().err
