"""The zig executable of the ziglang wheel: a clang, a linker and the sources of a C and a C++ library."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.toolchain.wheels import wheel_folder

ERROR_LINES = 20  # a message quotes the first lines of a compiler's output: later errors mostly follow from the first


@dataclass(frozen=True)
class Zig:
    """An installed zig.

    Attributes:
        executable: the program.
        lib: the folder of its library sources, such as `libcxxabi/`, `libcxx/` and `libunwind/`.
    """

    executable: Path
    lib: Path

    def run(self, arguments: Sequence[str | Path], build_cache: Path | None = None) -> None:
        """Run one zig command.

        Args:
            arguments: the command's name and its arguments.
            build_cache: the folder where zig keeps the parts of its own libraries that it compiles; None for commands
                that compile nothing.

        Raises:
            RuntimeError: the command failed; the message holds the command and the start of its output.
        """
        environment = dict(os.environ)
        if build_cache is not None:
            environment |= {"ZIG_GLOBAL_CACHE_DIR": str(build_cache), "ZIG_LOCAL_CACHE_DIR": str(build_cache)}
        command = [str(self.executable), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            output = "\n".join((done.stderr or done.stdout).splitlines()[:ERROR_LINES])
            raise RuntimeError(f"zig exited with {done.returncode}:\n{output}\ncommand: {' '.join(command)}")


def find_zig() -> Zig:
    """Return the zig of the ziglang wheel.

    Raises:
        UserError: the wheel is not installed.
    """
    folder = wheel_folder("ziglang", module="ziglang", needs=("lib/libcxxabi", "lib/libunwind"))
    return Zig(executable=folder / ("zig.exe" if os.name == "nt" else "zig"), lib=folder / "lib")
