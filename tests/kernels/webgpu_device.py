"""Runs GPU PrimFuncs for real: WGSL on Dawn's node build over a software Vulkan driver."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import tirx
from tvm.target import Target

from mlc_controlnet.passes.generate.webgpu_code import PIPELINE

TESTS = Path(__file__).parent
WEB = TESTS.parents[1] / "web"  # has the npm package `webgpu`
CHROMIUM = Path("/usr/lib/chromium")  # Debian's package carries a Vulkan loader and SwiftShader
WEBGPU = Target("webgpu", host={"kind": "llvm", "mtriple": "wasm32-unknown-unknown-wasm"})


def build_wgsl(func: tirx.PrimFunc) -> str:
    """The one shader of a scheduled PrimFunc."""
    module = tvm.IRModule({"kernel": func.with_attr("global_symbol", "kernel")})
    library = tvm.tirx.build(module, target=WEBGPU, pipeline=PIPELINE)
    shaders = []

    def collect(module):
        for imported in module.imports:
            if imported.kind == "webgpu":
                shaders.append(imported.inspect_source())
            collect(imported)

    collect(library)
    (shader,) = shaders
    return shader


def launch_grid(func: tirx.PrimFunc) -> list[int]:
    """Workgroups along x, y and z."""
    grid = {"blockIdx.x": 1, "blockIdx.y": 1, "blockIdx.z": 1}

    def visit(loop: tirx.For) -> None:
        if loop.thread_binding is not None and loop.thread_binding.thread_tag in grid:
            grid[loop.thread_binding.thread_tag] = int(loop.extent)

    tvm_ffi.structural_walk(func.body, (tirx.For, visit), order="pre")
    return list(grid.values())


def run_on_webgpu(
    funcs: list[tirx.PrimFunc], inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray], folder: Path
) -> None:
    """Launch `funcs` in order; their parameters are found by name; `outputs` are filled in place.

    Skips the test where the adapter has no shader-f16 and the kernel wants it: SwiftShader has not.
    """
    files = {}
    for name, array in (inputs | outputs).items():
        files[name] = str(folder / f"{name}.bin")
        Path(files[name]).write_bytes(array.tobytes())
    kernels = [{"wgsl": build_wgsl(func), "grid": launch_grid(func)} for func in funcs]
    job = folder / "job.json"
    job.write_text(json.dumps({"buffers": files, "kernels": kernels, "outputs": list(outputs)}))
    driver = CHROMIUM / "vk_swiftshader_icd.json"
    if not driver.exists() or not (WEB / "node_modules" / "webgpu").exists():
        pytest.skip("needs chromium (for its SwiftShader) and `npm ci` in web/ (for Dawn)")
    libraries = f"{CHROMIUM}:{os.environ.get('LD_LIBRARY_PATH', '')}"  # importing cv2 sets the variable
    # llvmpipe writes a read of workgroup memory out lane by lane: with four lanes, kernels compile in half the time.
    defaults = {"VK_ICD_FILENAMES": str(driver), "LP_NATIVE_VECTOR_WIDTH": "128"}
    environment = defaults | os.environ | {"LD_LIBRARY_PATH": libraries}
    command = ["node", str(WEB / "bench" / "compilers" / "run_wgsl.mjs"), str(WEB), str(job)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if process.returncode == 3:
        pytest.skip("the WebGPU adapter has no shader-f16")
    assert process.returncode == 0, process.stderr
    for name, array in outputs.items():
        array[...] = np.frombuffer(Path(files[name]).read_bytes(), array.dtype).reshape(array.shape)
