"""Link a library that a browser's processor runs: as `link_wasm`, over a shared memory and with parallel loops.

JavaScript makes the memory and imports it as `env.memory`. Where the page is cross-origin isolated, workers instantiate
the same module over the same memory and run parts of the kernels' parallel loops; `threads/parallel_launch.cc` has the
protocol. Elsewhere a page may make a shared memory too, and the library runs on one thread.

The runtime's objects are compiled without atomic operations, which wasm-ld takes amiss: `--no-check-features`. They run
on the first thread only.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.toolchain.link_wasm import link_wasm
from mlc_controlnet.toolchain.wasm_runtime import installed_inputs

SOURCE = Path(__file__).parent / "threads" / "parallel_launch.cc"
REPLACED = ("TVMBackendParallelLaunch", "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace")
OPTIONS = (
    "--import-memory",
    "--shared-memory",
    "--no-check-features",
    "--export=__stack_pointer",  # of each instance: a thread sets its own
    *(f"--wrap={name}" for name in REPLACED),
)
FLAGS = (
    "-target",
    "wasm32-wasi",
    "-mcpu=generic+atomics+bulk_memory",
    "-fno-exceptions",
    "-O2",
    "-g0",
    "-fvisibility=hidden",
    "-std=c++17",
)


def link_processor(output: str | Path, objects: str | Path | Sequence[str | Path], **_options: object) -> None:
    """Link `objects` with the wasm runtime and replace `output` in one step.

    Pass it as `fcompile=` to TVM's `export_library`.

    Raises:
        UserError, RuntimeError: as `link_wasm` does.
    """
    inputs = installed_inputs()
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "parallel_launch.o"
        includes = [f"-I{package / 'include'}" for package in (inputs.tvm, inputs.tvm_ffi)]
        includes.append(f"-I{inputs.tvm_ffi / '3rdparty/dlpack/include'}")
        inputs.zig.run(["c++", *FLAGS, *includes, "-c", SOURCE, "-o", unit], build_cache=Path(folder) / "zig-cache")
        paths = [objects] if isinstance(objects, str | Path) else list(objects)
        link_wasm(output, [unit, *paths], OPTIONS)


# TVM's export_library reads these attributes of its `fcompile` function.
link_processor.object_format = "o"  # type: ignore[attr-defined]
link_processor.need_system_lib = True  # type: ignore[attr-defined]
