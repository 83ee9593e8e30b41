"""Links a shared library for another family of processors with zig's linker.

It names no C library: the process that loads it has one, and TVM's runtime. ELF only, so not for macOS.
"""

from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.toolchain.zig import find_zig


def link_foreign(output: str, objects: Sequence[str], **_options: object) -> None:
    """Link `objects` to the shared library `output`.

    TVM calls this as the `fcompile` of `export_library`.

    Raises:
        UserError: the ziglang wheel is not installed.
    """
    find_zig().run(["ld.lld", "-shared", "-o", Path(output).resolve(), *(Path(file).resolve() for file in objects)])
