"""Write a file or a folder whole or not at all.

New content is written under a hidden name next to the target, flushed to the disk, and then renamed. Whatever stops the
program, even a power cut, the target holds its old content or its new content and never a mixture. Two processes must
not write one target at the same time; where they could, `locked` keeps one of them out.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlc_controlnet.errors import UserError

PARTIAL, PREVIOUS = ".partial-", ".previous-"  # prefixes, so that a name keeps its suffix: some libraries read it


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the path of a new file; when the block ends without an error, that file replaces `path`.

        with whole_file(Path("ring.png")) as partial:
            picture.save(partial)

    If the block raises, `path` keeps its old content and the new file is removed. The folder of `path` must exist.
    A symbolic link at `path` stays; the file that it points to is replaced.
    """
    target = path.resolve()
    partial = partial_of(target)
    try:
        yield partial
        flush(partial)
        partial.replace(target)
        flush(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` to the file `path`, whole or not at all, and return `path`."""
    with whole_file(path) as partial:
        partial.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` to the file `path` as UTF-8, whole or not at all, and return `path`."""
    return write_bytes(path, text.encode("utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append a line, which ends with a newline, to the file `path` as UTF-8, and wait until it is on the disk.

    If the last program stopped within a line, the new one begins below it. If the disk is full, the file keeps the
    lines that it had, and OSError is raised.
    """
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                line = f"\n{line}"
        try:
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, end)
            raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new empty folder; when the block ends without an error, that folder replaces `path`.

    If the block raises, `path` keeps its old content and the new folder is removed. Missing parents are created.
    """
    target = path.resolve()
    partial = partial_of(target)
    restore_folder(target)
    remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        flush_tree(partial)
        replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(folder: Path, is_older: bool, kind: str, subject: str | None = None) -> None:
    """Raise UserError if `folder` holds something else than an older `kind`: to write a new one would delete it.

    Args:
        is_older: whether it holds an older one.
        kind: such as "a bundle".
        subject: of the message; None: the folder.
    """
    subject = str(folder) if subject is None else subject
    if os.path.ismount(folder.resolve()):
        remedy = f"choose a folder inside it, such as {folder / kind.rpartition(' ')[2]}"
        raise UserError(subject, "where a disk is mounted, a folder that cannot be replaced", "another folder", remedy)
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not is_older:
        got, wanted = f"something that is not {kind}", f"{kind}, an empty folder or a new name"
        raise UserError(subject, got, wanted, "choose another")


def check_writable_folder(folder: Path, subject: str) -> None:
    """Raise UserError if no file can be written into `folder`, which need not exist yet. Call it before long work.

    subject: of the message, such as an option.
    """
    place = folder.absolute()
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    if not there.is_dir():
        raise UserError(subject, f"{folder}, where {there} is a file", "a folder", "choose another")
    _check_access(there, f"{subject} {folder}")


def check_writable_file(path: Path, subject: str) -> None:
    """Raise UserError if no file can be written at `path`, whose folder must exist. Call it before long work.

    subject: of the message, with the path.
    """
    if path.is_dir():
        raise UserError(subject, "a folder", "a file name", "add a file name")
    if not path.parent.is_dir():
        raise UserError(subject, f"no folder {path.parent}", "an existing folder", "create it first")
    _check_access(path.parent, subject)


def _check_access(folder: Path, subject: str) -> None:
    if not os.access(folder, os.W_OK):
        raise UserError(subject, f"no right to write in {folder}", "a writable folder", "choose another")


@contextlib.contextmanager
def locked(lock: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock that the file `lock` stands for while the block runs. Yields whether this process holds it.

    The system releases it when this process ends, however it ends, although processes that it forked live on. Between
    machines it counts as far as their common file system has locks. The file stays; its folder must exist.

    Args:
        wait: whether to wait while another process holds it.
    """
    with lock.open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            yield error.errno not in (errno.EAGAIN, errno.EACCES)  # any other: a file system without locks
            return
        yield True


def replace_folder(new: Path, target: Path) -> None:
    """Give the folder `new`, already flushed to the disk, the name `target`, and delete what had that name before.

    A folder cannot replace another one in a single step. If the program stops between the two renames, the old content
    is still there under a hidden name, and `restore_folder(target)` brings it back.
    """
    previous = previous_of(target)
    remove(previous)
    if target.exists():
        target.rename(previous)
    new.rename(target)
    flush(target.parent)
    remove(previous)


def restore_folder(target: Path) -> None:
    """Give `target` its old content back, if a program stopped in the middle of `replace_folder`."""
    previous = previous_of(target)
    if previous.exists() and not target.exists():
        previous.rename(target)


def partial_of(target: Path) -> Path:
    """Return the hidden name that new content has until it is complete."""
    return target.parent / f"{PARTIAL}{target.name}"


def previous_of(target: Path) -> Path:
    """Return the hidden name that old content has while it is replaced."""
    return target.parent / f"{PREVIOUS}{target.name}"


def flush(path: Path) -> None:
    """Wait until the content of a file, or the list of a folder's entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Wait until everything below `folder`, and the folder itself, is on the disk."""
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            flush(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with its content; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
