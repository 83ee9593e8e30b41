"""Errors that a user can correct.

`UserError` is the only one that this project raises for a user's mistake; `explain` turns those of Python and of the
system into it. Every other exception is a bug of ours and keeps its traceback.
"""

import errno
import os
import sys
import tempfile
from collections.abc import Iterable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,  # a file where a folder is to be made
    errno.ELOOP,
    errno.EBUSY,
    errno.ENAMETOOLONG,
)


class UserError(Exception):
    """A mistake of the user. The command line prints it on one line, without a traceback, and exits with 2.

    Attributes:
        subject: the file, option or tensor that is wrong.
        got: the value found.
        wanted: the value or values that would be right.
        remedy: the action that helps the user now.
    """

    def __init__(self, subject: str, got: str, wanted: str, remedy: str) -> None:
        super().__init__(subject, got, wanted, remedy)
        self.subject = subject
        self.got = got
        self.wanted = wanted
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.subject}: got {self.got}, wanted {self.wanted}; {self.remedy}"


def print_notice(text: str) -> None:
    """Print a line on stderr about something that the command did and that may surprise the user."""
    print(f"notice: {text}", file=sys.stderr, flush=True)


def check_one_of(subject: str, value: object, allowed: Iterable[object]) -> None:
    """Raise UserError unless `value` is in `allowed`. The message lists the allowed values and spells None as null."""
    choices = tuple(allowed)
    if value not in choices:
        wanted = "one of " + ", ".join("null" if choice is None else str(choice) for choice in choices)
        raise UserError(subject, repr(value), wanted, "choose one of these")


def missing_package(name: str) -> UserError:
    """Return the error for a package that is not installed in this Python."""
    return UserError(
        f"package {name}",
        f"a Python without it ({sys.executable})",
        "an environment that has it",
        "in a checkout, run `make .venv/installed` and activate it with `. .venv/bin/activate`; "
        "elsewhere, install mlc-controlnet with its extras compile and train",
    )


def explain(error: Exception) -> UserError | None:
    """Turn an exception that the user can correct into a UserError; return None if it is a bug of ours.

    The user can correct a missing package, a full disk, and a file or folder that the system refuses to open.
    """
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        name = error.name.partition(".")[0]
        ours = name == "mlc_controlnet" or name in sys.modules  # main() blocks torch by a None there
        return None if ours else missing_package(name)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        place = "disk" if error.filename is None else str(error.filename)  # an error of write() names no file
        return UserError(place, os.strerror(error.errno), "a disk that takes it", "make room there, or choose another")
    if isinstance(error, OSError) and error.errno in REFUSALS and error.filename is not None:
        reason = os.strerror(error.errno)
        return UserError(str(error.filename), reason, "a place that may be used", "choose another, or its permissions")
    no_space = os.strerror(errno.ENOSPC)
    if no_space in str(error):  # TVM and the linker report their temporary files in text
        return UserError("disk", no_space, "room to build in", f"make room, also in {tempfile.gettempdir()}")
    return None
