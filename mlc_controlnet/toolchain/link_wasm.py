"""Link compiled TVM objects with the wasm runtime into one .wasm file that tvmjs can instantiate.

The file is a WASI reactor. JavaScript that instantiates it has to follow these rules:

- Call `tvmjs.instantiate(bytes, provider)`. `provider.imports.wasi_snapshot_preview1` has the functions of
  WASI_IMPORTS. `provider.start(instance)` calls `instance.exports._initialize()` once. tvmjs itself fills the `env`
  module.
- Both WASI functions receive numbers:

      fd_write(fd, iovs, iovs_len, written_ptr)     fd 1: log text, 2: error text, not always whole lines; return 0
      proc_exit(code)                               has to throw: the caller expects it not to return

- Memory grows from 32 MiB to at most 2 GiB. Growing detaches every view of it, so each WASI call makes a new
  DataView(memory.buffer).
- TVM throws its errors as JavaScript Errors, and the instance stays usable. A WebAssembly.RuntimeError is a trap: the
  instance cannot be used again.
"""

from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.files import whole_file
from mlc_controlnet.toolchain.wasm_runtime import build_runtime
from mlc_controlnet.toolchain.zig import find_zig

# The functions that tvmjs 0.27 calls. The linker drops code that neither these nor the registrations at start reach.
EXPORTS = (
    "_initialize",
    "TVMFFIAnyViewToOwnedAny",
    "TVMFFIDataTypeFromString",
    "TVMFFIDataTypeToString",
    "TVMFFIErrorMoveFromRaised",
    "TVMFFIErrorSetRaisedFromCStr",
    "TVMFFIFunctionCall",
    "TVMFFIFunctionGetGlobal",
    "TVMFFIFunctionSetGlobal",
    "TVMFFIGetTypeInfo",
    "TVMFFIObjectDecRef",
    "TVMFFITypeKeyToIndex",
    "TVMFFIWasmFunctionCreate",
    "TVMFFIWasmGetLastError",
    "TVMWasmAllocSpace",
    "TVMWasmFreeSpace",
)
WASI_IMPORTS = ("fd_write", "proc_exit")

INITIAL_MEMORY_BYTES = 32 << 20
MAX_MEMORY_BYTES = 2 << 30  # tvmjs reads pointers as signed 32-bit numbers: above 2 GiB they turn negative
STACK_BYTES = 1 << 20

WASM_MAGIC = b"\0asm"


def link_wasm(
    output: str | Path,
    objects: str | Path | Sequence[str | Path],
    options: Sequence[str] = (),
    cache_folder: Path | None = None,
) -> None:
    """Link `objects` with the wasm runtime and replace `output` in one step.

    Pass it as `fcompile=` to TVM's `export_library`. A user's first call builds the runtime, which takes minutes; later
    links take a second. Linking does not depend on the device: libraries for WebGPU and for the CPU (wasm32, with or
    without simd128) link in the same way.

    Args:
        output: the .wasm file to write.
        objects: wasm32 object files, as the llvm target with mtriple wasm32-unknown-unknown-wasm writes them.
        options: more arguments for wasm-ld.
        cache_folder: the folder that keeps the built runtime; None for the user's cache folder.

    Raises:
        UserError: a wheel that the runtime is built from is missing.
        RuntimeError: an object is not wasm, or the linker or the compiler failed.
    """
    output = Path(output)
    paths = [Path(path) for path in ([objects] if isinstance(objects, str | Path) else objects)]
    for path in paths:
        with path.open("rb") as file:
            magic = file.read(len(WASM_MAGIC))
        if magic != WASM_MAGIC:
            wanted = "a wasm object; build with the host target llvm, mtriple wasm32-unknown-unknown-wasm"
            raise RuntimeError(f"{path}: starts with {magic!r}, wanted {wanted}")
    runtime = build_runtime(cache_folder)
    with whole_file(output) as linked:
        find_zig().run(
            [
                "wasm-ld",
                "--no-entry",
                *runtime.objects(),
                *paths,
                *runtime.archives(),
                *(f"--export={name}" for name in EXPORTS),
                "--gc-sections",
                "--strip-all",
                "-O3",
                "--stack-first",  # so that a stack overflow traps instead of overwriting the globals
                "-z",
                f"stack-size={STACK_BYTES}",
                f"--initial-memory={INITIAL_MEMORY_BYTES}",
                f"--max-memory={MAX_MEMORY_BYTES}",
                *options,
                "-o",
                linked,
            ]
        )


# TVM's export_library reads these attributes of its `fcompile` function.
link_wasm.object_format = "o"  # type: ignore[attr-defined]
link_wasm.need_system_lib = True  # type: ignore[attr-defined]
