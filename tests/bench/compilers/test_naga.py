"""Firefox's compiler accepts every shader; skipped where the package wgpu is missing."""

import pytest
import tvm

from mlc_controlnet.bench.compilers.kernels import compile_kernels
from mlc_controlnet.bench.compilers.naga import rejected_by_naga
from mlc_controlnet.bench.operations.cases import operation_cases
from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.errors import UserError
from mlc_controlnet.passes.pipeline import clean

OVER_LIMITS = {("upsample_conv3x3_256_256", "float32")}  # its result has 256 MiB
RIGHT = """@group(0) @binding(0) var<storage, read_write> x : array<f32>;
@compute @workgroup_size(64)
fn right(@builtin(global_invocation_id) i : vec3<u32>) { x[i.x] = x[i.x] + 1.0; }"""


@pytest.fixture(autouse=True)
def _naga() -> None:
    try:
        assert rejected_by_naga({"right": RIGHT}) == {}
    except UserError as error:
        pytest.skip(str(error))


def test_a_wrong_shader_is_rejected_by_name() -> None:
    assert list(rejected_by_naga({"right": RIGHT, "wrong": RIGHT.replace("1.0", "one")})) == ["wrong"]


@pytest.mark.integration
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_shader_of_the_operations_is_accepted(dtype: str) -> None:
    cases = operation_cases((), False, dtype)
    names = [case.name for case in cases.cases[1:] if (case.name, dtype) not in OVER_LIMITS]
    functions = {tvm.ir.GlobalVar(name): cases.module[name] for name in names}
    kernels = compile_kernels(tvm.IRModule(functions), dtype)
    assert rejected_by_naga({kernel.name: kernel.wgsl for kernel in kernels}) == {}


@pytest.mark.integration
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_shader_of_circles_is_accepted(dtype: str) -> None:
    module = clean(capture(load_checkpoint(find_model("circles")), dtype)).module
    shaders = {kernel.name: kernel.wgsl for kernel in compile_kernels(module, dtype)}
    assert len(shaders) > 50
    assert rejected_by_naga(shaders) == {}
