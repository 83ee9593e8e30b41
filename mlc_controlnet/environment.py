"""What the machine lacks, said in one line: packages that are not installed, folders that may not be written."""

import errno
import importlib.util
import os
import sys
from collections.abc import Sequence

from mlc_controlnet.errors import UserError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)


def check_packages(names: Sequence[str]) -> None:
    """End the program with 2 and one line where a package is not installed: nothing that needs it is imported yet."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            print(f"error: {missing_package(name)}", file=sys.stderr)
            sys.exit(2)


def missing_package(name: str) -> UserError:
    return UserError(
        f"package {name}",
        f"a Python without it ({sys.executable})",
        "the project's environment",
        "activate it with `. .venv/bin/activate`; `make .venv/installed` makes it",
    )


def explain(error: Exception) -> UserError | None:
    """The user's part in an error that Python raised; None where the failure is ours."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        name = error.name.partition(".")[0]
        ours = name == "mlc_controlnet" or name in sys.modules  # there is None where we have shut a package out
        return None if ours else missing_package(name)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        place = "disk" if error.filename is None else str(error.filename)  # a write does not say where
        return UserError(place, os.strerror(error.errno), "a disk that takes it", "make room there, or choose another")
    if isinstance(error, OSError) and error.errno in REFUSALS and error.filename is not None:
        reason = os.strerror(error.errno)
        return UserError(str(error.filename), reason, "a place that may be used", "choose another, or its permissions")
    return None
