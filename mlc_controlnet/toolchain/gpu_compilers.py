"""Check for a native GPU before a build starts, and generate a GPU's kernel source without its compiler."""

import contextlib
import importlib
from collections.abc import Iterator

import tvm
import tvm_ffi

from mlc_controlnet.errors import UserError

NATIVE_GPUS = ("cuda", "rocm", "metal", "opencl")


def check_device(target: str) -> None:
    """Check that TVM finds a device for a native GPU `target`; any other target passes.

    Without a device, TVM writes a library that holds only source, and its user learns too late that it does not run.

    Raises:
        UserError: this machine or this TVM has no such device.
    """
    if target in NATIVE_GPUS and not tvm.device(target).exist:
        raise UserError(
            f"--target {target}",
            "no such device on this machine or in this TVM",
            "a device that TVM can compile for",
            f"build on a machine with one, or write the kernels' source: "
            f"python -m mlc_controlnet sources --target {target}",
        )


@contextlib.contextmanager
def no_compiler() -> Iterator[None]:
    """Make TVM keep CUDA kernels as source and AMD kernels as unlinked object code inside this context."""
    importlib.import_module("tvm.support.nvcc")  # the two modules register TVM's own functions, replaced below
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
