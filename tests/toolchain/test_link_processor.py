"""A library for a browser's processor, run under node with threads of its own."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.compile.library import plan_library, write_library
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.toolchain.link_wasm import WASI_IMPORTS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
THREADS = 3  # divides neither the rows nor the columns


@I.ir_module
class Product:
    """A product of two matrices, whose panels run in parallel, each with a workspace."""

    @R.function
    def multiply(x: R.Tensor((40, 64), "float32"), w: R.Tensor((64, 80), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.matmul(x, w)
            R.output(out)
        return out


@pytest.fixture(scope="module")
def matrices() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype("float32") for shape in ((40, 64), (64, 80))]


@pytest.fixture(scope="module")
def seen(matrices: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("threads")
    config = BuildConfig("product", "webgpu", ("float32",), folder, folder / "no-records")
    library, _ = write_library(plan_library(Product, "float32", config, "wasm-simd128"), "product", folder)
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps([{"shape": m.shape, "values": m.ravel().tolist()} for m in matrices]))
    program = Path(__file__).with_name("run_threads.mjs")
    command = ["node", program, ROOT / "web", library, inputs, str(THREADS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_thread_computes_what_numpy_does(seen: dict[str, Any], matrices: list[np.ndarray]) -> None:
    x, w = matrices
    np.testing.assert_allclose(seen["one"], (x @ w).ravel(), rtol=0, atol=1e-4)


def test_the_first_thread_does_what_no_other_has_begun(seen: dict[str, Any]) -> None:
    assert seen["alone"] == seen["one"]


def test_several_threads_compute_the_same_every_time(seen: dict[str, Any]) -> None:
    assert seen["different"] == 0


def test_the_memory_is_imported_beside_what_every_library_wants(seen: dict[str, Any]) -> None:
    wasi = {f"wasi_snapshot_preview1.{name}" for name in WASI_IMPORTS}
    assert set(seen["imports"]) == {"env.memory", "env.TVMFFIWasmSafeCall", "env.TVMFFIWasmFunctionDeleter", *wasi}
