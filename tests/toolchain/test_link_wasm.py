"""Linked libraries, run under node by the tvmjs of npm. The first run on a machine builds the runtime: two minutes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from mlc_controlnet.toolchain.link_wasm import EXPORTS, MAX_MEMORY_BYTES, WASI_IMPORTS, link_wasm
from mlc_controlnet.toolchain.wasm_runtime import installed_inputs, user_cache_folder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
WASM_HOST = {"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"}
HEADS, QUERIES, KEYS, DEPTH = 2, 5, 7, 3


def attention_module() -> tvm.IRModule:
    """softmax(q k^T / 2) v.  # q [2, 5, 3], k and v [2, 7, 3] -> [2, 5, 3]"""
    shapes = {"q": (HEADS, QUERIES, DEPTH), "k": (HEADS, KEYS, DEPTH), "v": (HEADS, KEYS, DEPTH)}
    q, k, v = (relax.Var(name, relax.TensorType(shape, "float32")) for name, shape in shapes.items())
    builder = relax.BlockBuilder()
    with builder.function("attention", [q, k, v]):
        with builder.dataflow():
            scores = builder.emit(relax.op.matmul(q, relax.op.permute_dims(k, [0, 2, 1])))
            scores = builder.emit(relax.op.multiply(scores, relax.const(0.5, "float32")))
            result = builder.emit_output(relax.op.matmul(relax.op.nn.softmax(scores), v))
        builder.emit_func_output(result)
    return builder.get()


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scores = np.exp(q @ k.transpose(0, 2, 1) * 0.5)
    return scores / scores.sum(-1, keepdims=True) @ v


def run(library: Path, inputs: Path | None = None) -> dict[str, Any]:
    """What run_library.mjs saw."""
    web = ROOT / "web"
    installed = web / "node_modules/@mlc-ai/web-runtime"
    assert installed.is_dir(), f"{installed} is missing: run `npm ci` in {web}"
    command = ["node", Path(__file__).with_name("run_library.mjs"), web, library, *([inputs] if inputs else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def webgpu_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("webgpu") / "attention.wasm"
    target = tvm.target.Target({"kind": "webgpu"}, host=WASM_HOST)
    with target:
        scheduled = tvm.ir.transform.Sequential(
            [relax.transform.LegalizeOps(), tvm.s_tir.dlight.ApplyDefaultSchedule(tvm.s_tir.dlight.gpu.Fallback())]
        )(attention_module())
    relax.build(scheduled, target).export_library(path, fcompile=link_wasm)
    return path


@pytest.fixture(scope="module")
def tensors() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = [(HEADS, QUERIES, DEPTH), (HEADS, KEYS, DEPTH), (HEADS, KEYS, DEPTH)]
    return [generator.standard_normal(shape).astype("float32") for shape in shapes]


@pytest.fixture(scope="module", params=[[], ["+simd128"]], ids=["scalar", "simd128"])
def cpu_run(
    request: pytest.FixtureRequest, tensors: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A library for the CPU, called under node."""
    folder = tmp_path_factory.mktemp("cpu")
    host = WASM_HOST | ({"mattr": request.param} if request.param else {})
    relax.build(attention_module(), tvm.target.Target(host)).export_library(folder / "cpu.wasm", fcompile=link_wasm)
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps([{"shape": t.shape, "values": t.ravel().tolist()} for t in tensors]), encoding="utf-8")
    return run(folder / "cpu.wasm", inputs)


def test_a_webgpu_library_has_what_tvmjs_calls_and_wants_only_what_is_documented(webgpu_library: Path) -> None:
    seen = run(webgpu_library)
    assert seen["instantiated"]
    assert set(seen["exports"]) == {"memory", *EXPORTS}
    wasi = {f"wasi_snapshot_preview1.{name}" for name in WASI_IMPORTS}
    assert set(seen["imports"]) == {"env.TVMFFIWasmSafeCall", "env.TVMFFIWasmFunctionDeleter", *wasi}


def test_a_webgpu_library_carries_its_shaders(webgpu_library: Path) -> None:
    assert b"@compute @workgroup_size(" in webgpu_library.read_bytes()


def test_a_library_holds_no_path_of_the_machine_that_built_it(webgpu_library: Path) -> None:
    content = webgpu_library.read_bytes()
    inputs = installed_inputs()
    for folder in (user_cache_folder(), inputs.tvm, inputs.zig.lib, Path.home()):
        assert f"{folder}/".encode() not in content
    assert b"tvm/src/runtime/" in content  # what is left of the names in error messages


def test_a_cpu_library_computes_what_numpy_does(cpu_run: dict[str, Any], tensors: list[np.ndarray]) -> None:
    np.testing.assert_allclose(cpu_run["output"], reference(*tensors).ravel(), rtol=0, atol=1e-6)


def test_a_bad_shape_is_a_javascript_error_with_tvms_message(cpu_run: dict[str, Any]) -> None:
    assert cpu_run["badShape"]["class"] == "Error"
    assert "shape[1] mismatch to specified constant" in cpu_run["badShape"]["message"]
    assert "param=q" in cpu_run["badShape"]["message"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("badCount", "expects 3 arguments (q, k, v), but 1 arguments were provided"),
        ("unknownGlobal", "no.such.function"),
        ("badDtype", "expect Tensor with dtype float32 but get int32"),
        ("noFiles", "the wasm runtime has no file system"),
        ("outOfMemory", "bad_alloc"),
        ("over2GiB", "bad_alloc"),
    ],
)
def test_a_mistaken_call_is_a_javascript_error(cpu_run: dict[str, Any], call: str, message: str) -> None:
    assert cpu_run[call]["class"] == "Error"
    assert message in cpu_run[call]["message"]


def test_the_instance_lives_on_after_errors_and_growth(cpu_run: dict[str, Any]) -> None:
    assert cpu_run["outputAfterErrors"] == cpu_run["output"]
    assert cpu_run["initialMemoryBytes"] < cpu_run["grownMemoryBytes"] <= MAX_MEMORY_BYTES
    assert cpu_run["outputAfterGrowth"] == cpu_run["output"]


def test_errors_are_thrown_and_not_printed(cpu_run: dict[str, Any]) -> None:
    assert cpu_run["printed"] == ""


def test_an_object_that_is_not_wasm_is_refused(tmp_path: Path) -> None:
    native = tmp_path / "native.o"
    native.write_bytes(b"\x7fELF\x02\x01\x01")
    with pytest.raises(RuntimeError, match=r"native\.o: starts with .*ELF.*, wanted a wasm object"):
        link_wasm(tmp_path / "library.wasm", native)


def test_a_failed_link_keeps_the_library_that_was_there(tmp_path: Path) -> None:
    output, broken = tmp_path / "library.wasm", tmp_path / "broken.o"
    output.write_bytes(b"the old library")
    broken.write_bytes(b"\0asm\x01\0\0\0 and then nonsense")
    with pytest.raises(RuntimeError, match="zig exited with"):
        link_wasm(output, broken)
    assert output.read_bytes() == b"the old library"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.o", "library.wasm"]


def test_a_library_without_system_lib_is_refused_before_linking(tmp_path: Path) -> None:
    executable = relax.build(attention_module(), tvm.target.Target(WASM_HOST), system_lib=False)
    with pytest.raises(ValueError, match="need --system-lib"):
        executable.export_library(tmp_path / "library.wasm", fcompile=link_wasm)
