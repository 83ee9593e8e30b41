"""The one error that a user can cause, in four parts, and the errors of Python that are a user's to mend."""

import errno
import os
import sys
import tempfile
from collections.abc import Iterable

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)


class UserError(Exception):
    """A mistake of the user's: the command line prints it on one line and exits with 2, without a traceback.

    Anything else that is raised is a failure of ours and keeps its traceback.
    """

    def __init__(self, subject: str, got: str, wanted: str, remedy: str) -> None:
        super().__init__(subject, got, wanted, remedy)
        self.subject = subject  # the thing at fault: a file, an option, a tensor
        self.got = got  # what it is
        self.wanted = wanted  # what it should be
        self.remedy = remedy  # what the user can do now

    def __str__(self) -> str:
        return f"{self.subject}: got {self.got}, wanted {self.wanted}; {self.remedy}"


def print_notice(text: str) -> None:
    """Tell the user, on the standard error stream, about something that the command did and that may surprise."""
    print(f"notice: {text}", file=sys.stderr, flush=True)


def check_one_of(subject: str, value: object, allowed: Iterable[object]) -> None:
    """Raise UserError unless `value` is in `allowed`, which the message lists; None is spelled null."""
    choices = tuple(allowed)
    if value not in choices:
        wanted = "one of " + ", ".join("null" if choice is None else str(choice) for choice in choices)
        raise UserError(subject, repr(value), wanted, "choose one of these")


def missing_package(name: str) -> UserError:
    """The error for a package that this Python does not have."""
    return UserError(
        f"package {name}",
        f"a Python without it ({sys.executable})",
        "an environment that has it",
        "in a checkout, run `make .venv/installed` and activate it with `. .venv/bin/activate`; "
        "elsewhere, install mlc-controlnet with its extras compile and train",
    )


def explain(error: Exception) -> UserError | None:
    """Turn an exception of Python that the user can mend into a UserError; None if it is a failure of ours."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        name = error.name.partition(".")[0]
        ours = name == "mlc_controlnet" or name in sys.modules  # None stands there if we have blocked a package
        return None if ours else missing_package(name)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        place = "disk" if error.filename is None else str(error.filename)  # a write does not say where
        return UserError(place, os.strerror(error.errno), "a disk that takes it", "make room there, or choose another")
    if isinstance(error, OSError) and error.errno in REFUSALS and error.filename is not None:
        reason = os.strerror(error.errno)
        return UserError(str(error.filename), reason, "a place that may be used", "choose another, or its permissions")
    no_space = os.strerror(errno.ENOSPC)
    if no_space in str(error):  # from TVM's or the linker's temporary files
        return UserError("disk", no_space, "room to build in", f"make room, also in {tempfile.gettempdir()}")
    return None
