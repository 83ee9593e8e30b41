"""What a native GPU's library takes, looked for before a build starts, and how source is had without any of it."""

import contextlib
import importlib
from collections.abc import Iterator

import tvm
import tvm_ffi

from mlc_controlnet.errors import UserError

NATIVE_GPUS = ("cuda", "rocm", "metal", "opencl")


def check_device(target: str) -> None:
    """Raises UserError where this machine or this TVM has no device of a native GPU `target`.

    Without one, TVM writes a library that holds source alone, and nothing says whether it will run.
    """
    if target in NATIVE_GPUS and not tvm.device(target).exist:
        raise UserError(
            f"--target {target}",
            "no such device on this machine or in this TVM",
            "one, which TVM compiles for",
            f"build there, or take the kernels' source: python -m mlc_controlnet sources --target {target}",
        )


@contextlib.contextmanager
def no_compiler() -> Iterator[None]:
    """TVM keeps CUDA's source, and AMD's object code unlinked, while this lasts."""
    importlib.import_module("tvm.support.nvcc")  # they register TVM's own
    importlib.import_module("tvm.support.rocm")
    replacements = {
        "tvm_callback_cuda_compile": lambda code, *_: code,
        "tvm_callback_rocm_link": lambda code: code,
        "tvm_callback_rocm_bitcode_path": lambda *_: [],
    }
    former = {name: tvm_ffi.get_global_func(name) for name in replacements}
    try:
        for name, function in replacements.items():
            tvm_ffi.register_global_func(name, function, override=True)
        yield
    finally:
        for name, function in former.items():
            tvm_ffi.register_global_func(name, function, override=True)
