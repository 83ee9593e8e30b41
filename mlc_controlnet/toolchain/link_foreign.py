"""Links a shared library for another family of processors with zig's linker.

It names no C library: the process that loads it has one, and TVM's runtime.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.toolchain.zig import find_zig


def link_foreign(triple: str, output: str, objects: Sequence[str], **_options: object) -> None:
    """Link `objects` to the shared library `output` for LLVM's target `triple`.

    TVM calls this as the `fcompile` of `export_library`.

    Raises:
        UserError: the ziglang wheel is not installed.
    """
    machine, _, system, *rest = triple.split("-")
    target = f"{machine}-macos" if system == "darwin" else "-".join([machine, system, *rest])
    files = [Path(file).resolve() for file in objects]
    with tempfile.TemporaryDirectory() as cache:
        find_zig().run(
            ["cc", "-target", target, "-shared", "-nostdlib", "-o", Path(output).resolve(), *files], Path(cache)
        )
