"""What the wasm runtime is made of: the merged source tree, the files compiled from it, and their flags.

The runtime is cached under a hash that this file is part of: all that decides its bytes is here or in `overlay/`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

# Included by the wheel's web/emcc/wasm_runtime.cc and emptied in our tree, with what each group would be for.
LEFT_OUT = (
    # Measuring kernels from another machine.
    "src/runtime/rpc/rpc_channel.cc",
    "src/runtime/rpc/rpc_endpoint.cc",
    "src/runtime/rpc/rpc_event_impl.cc",
    "src/runtime/rpc/rpc_local_session.cc",
    "src/runtime/rpc/rpc_module.cc",
    "src/runtime/rpc/rpc_session.cc",
    "src/runtime/timer.cc",
    # Language models.
    "src/runtime/vm/attn_backend.cc",
    "src/runtime/vm/paged_kv_cache.cc",
    "src/runtime/vm/rnn_state.cc",
    # Sorting on the CPU, and tvm-ffi's own tests.
    "src/runtime/extra/contrib/sort/sort.cc",
    "3rdparty/tvm-ffi/src/ffi/testing/testing.cc",
)

TVM_UNITS = ("wasm_runtime", "webgpu_runtime", "tvmjs_support")

# Upstream prints every error before it throws, since its wasm cannot catch. Ours can, and the caller has the message.
LOGS_ERRORS = "#define TVM_FFI_ALWAYS_LOG_BEFORE_THROW 1\n"

# zig's own build of libc++abi for wasm has no exceptions; these files of it are what catching needs.
LIBCXXABI_UNITS = (
    "abort_message",
    "cxa_aux_runtime",
    "cxa_default_handlers",
    "cxa_exception",
    "cxa_exception_storage",
    "cxa_guard",
    "cxa_handlers",
    "cxa_personality",
    "cxa_vector",
    "cxa_virtual",
    "fallback_malloc",
    "private_typeinfo",
    "stdlib_exception",
    "stdlib_new_delete",
    "stdlib_stdexcept",
    "stdlib_typeinfo",
)

STANDARD_LIBRARY_UNITS = ("cxa_thread_atexit", "sbrk", "wasi_files")

# What zig builds of its own libraries when it links the program below.
ZIG_ARCHIVES = ("crt1-reactor.o", "libc++.a", "libc.a", "libcompiler_rt.a", "libzigc.a")
ZIG_ARCHIVES_PROGRAM = """
#include <iostream>
extern "C" __attribute__((visibility("default"))) void f() { std::cout << 1; }
"""

TARGET = ("-target", "wasm32-wasi")
ZIG_ARCHIVES_COMMAND = ("c++", *TARGET, "-mexec-model=reactor", "-O2")
COMMON = (
    *TARGET,
    "-mcpu=generic+exception_handling",
    "-fwasm-exceptions",
    "-O2",
    "-g0",
    "-w",  # not our sources
    "-fvisibility=hidden",
)
LIBCXXABI_DEFINES = (
    "-D_LIBCXXABI_BUILDING_LIBRARY",
    "-D_LIBCPP_BUILDING_LIBRARY",
    "-D_LIBCXXABI_HAS_NO_THREADS",
    "-DLIBCXX_BUILDING_LIBCXXABI",
    # An exception that nobody catches ends the program without printing its demangled type: 100 KB less.
    "-DLIBCXXABI_NON_DEMANGLING_TERMINATE",
    "-D_LIBUNWIND_HIDE_SYMBOLS",
    "-DNDEBUG",
)


@dataclass(frozen=True)
class Unit:
    """One file to compile.

    Attributes:
        source: the file.
        flags: all of zig's arguments but the source and the output.
    """

    source: Path
    flags: tuple[str, ...]

    @property
    def object_name(self) -> str:
        """The name of the object file."""
        return self.source.name + ".o"


def lay_out_tree(tree: Path, tvm: Path, tvm_ffi: Path, overlay: Path) -> None:
    """Write TVM's repository layout to `tree`: the wheels' sources, less LEFT_OUT, with our overlay on top.

    A copy, since includes such as "../../support/bytes_io.h" have to find the overlay beside the wheel's files.

    Args:
        tvm, tvm_ffi: the installed packages' folders.

    Raises:
        RuntimeError: the wheel's sources are not those that LEFT_OUT and the overlay were written for.
    """
    not_sources = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "include", "web/emcc"):
        shutil.copytree(tvm / folder, tree / folder, ignore=not_sources)
    for folder in ("src", "include", "3rdparty/dlpack/include"):
        shutil.copytree(tvm_ffi / folder, tree / "3rdparty/tvm-ffi" / folder, ignore=not_sources)

    runtime = tree / "web/emcc/wasm_runtime.cc"
    included = runtime.read_text(encoding="utf-8")
    for path in LEFT_OUT:
        if f'#include "{path}"' not in included:
            raise RuntimeError(f"{path}: wasm_runtime.cc of this TVM does not include it; see LEFT_OUT in {__file__}")
        (tree / path).write_text("", encoding="utf-8")
    for unit in ("wasm_runtime", "webgpu_runtime"):
        source = tree / f"web/emcc/{unit}.cc"
        text = source.read_text(encoding="utf-8")
        if LOGS_ERRORS not in text:
            raise RuntimeError(f"{unit}.cc of this TVM does not set TVM_FFI_ALWAYS_LOG_BEFORE_THROW; see {__file__}")
        source.write_text(text.replace(LOGS_ERRORS, ""), encoding="utf-8")

    shutil.copytree(overlay, tree, dirs_exist_ok=True)


def units(tree: Path, zig_lib: Path) -> list[Unit]:
    """Every file to compile, the slowest first.

    Args:
        tree: what `lay_out_tree` wrote.
        zig_lib: the ziglang wheel's `lib`.
    """
    # Error messages carry file names: without these, the builder's home directory would be published in every bundle.
    names = (f"-ffile-prefix-map={tree}=tvm", f"-ffile-prefix-map={zig_lib}=zig")
    tvm_flags = (
        *COMMON,
        *names,
        "-std=c++17",
        f"-I{tree / 'standard_library'}",
        f"-I{tree}",
        f"-I{tree / 'include'}",
        f"-I{tree / '3rdparty/tvm-ffi/include'}",
        f"-I{tree / '3rdparty/tvm-ffi/3rdparty/dlpack/include'}",
        "-DTVM_FFI_CMAKE_LITTLE_ENDIAN=1",
    )
    abi = zig_lib / "libcxxabi"
    abi_flags = (
        *COMMON,
        *names,
        *LIBCXXABI_DEFINES,
        f"-I{abi / 'include'}",
        f"-I{abi / 'src'}",
        f"-I{zig_lib / 'libunwind/include'}",
        f"-I{zig_lib / 'libcxx/src'}",
    )
    return [
        *(Unit(tree / f"web/emcc/{name}.cc", tvm_flags) for name in TVM_UNITS),
        *(Unit(abi / f"src/{name}.cpp", (*abi_flags, "-std=c++23")) for name in LIBCXXABI_UNITS),
        Unit(zig_lib / "libunwind/src/Unwind-wasm.c", abi_flags),
        *(Unit(tree / f"standard_library/{name}.cc", COMMON) for name in STANDARD_LIBRARY_UNITS),
    ]
