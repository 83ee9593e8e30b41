"""Write a bundle whole or not at all.

Files are written into a hidden folder next to the target. The manifest is written last, everything is flushed to disk,
and then the folder is renamed to the target. A build that fails or is interrupted leaves the target as it was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from mlc_controlnet.bundle.file_names import MANIFEST_NAME, is_inside
from mlc_controlnet.bundle.manifest import FileEntry, Manifest
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.errors import FULL_DISK, UserError
from mlc_controlnet.files import check_replaceable, flush, partial_of, remove, replace_folder, restore_folder

CHUNK_BYTES = 1 << 20


class BundleWriter:
    """Collects the files of one bundle; `finish` puts them in place.

        with BundleWriter(Path("dist/circles-webgpu")) as writer:
            writer.add_bytes("params/00.bin", shard)
            bundle = writer.finish(manifest)

    A block that ends without `finish` discards everything that was added. One process at a time can write a target.
    """

    def __init__(self, target: Path) -> None:
        self.target = target.resolve()
        self._partial = partial_of(self.target)
        self._lock: int | None = None
        self._files: dict[str, FileEntry] = {}

    def __enter__(self) -> "BundleWriter":
        check_replaceable(self.target, _is_bundle(self.target), "a bundle")
        with self._explain_full_disk():
            self._partial.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_folder(self._partial, self.target)
        self._discard = weakref.finalize(self, _discard, self._partial, self.target)  # also where the process ends
        for leftover in self._partial.iterdir():  # of a build that was killed
            remove(leftover)
        restore_folder(self.target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._discard()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def add_bytes(self, path: str, data: bytes | memoryview) -> FileEntry:
        """Write `data` at `path` (relative, with /) and note its size and sha256."""
        with self._explain_full_disk():
            file = self._create(path)
            with file.open("xb") as out:
                out.write(data)
            flush(file)
        return self._note(path, len(memoryview(data).cast("B")), hashlib.sha256(data).hexdigest())

    def add_file(self, path: str, source: Path) -> FileEntry:
        """Copy the file `source` to `path` and note its size and sha256."""
        digest = hashlib.sha256()
        size = 0
        with self._explain_full_disk(), source.open("rb") as read:
            file = self._create(path)
            with file.open("xb") as out:
                while chunk := read.read(CHUNK_BYTES):
                    out.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
            flush(file)
        return self._note(path, size, digest.hexdigest())

    def add_json(self, path: str, value: Any) -> FileEntry:
        """Write `value` as compact JSON."""
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return self.add_bytes(path, text.encode())

    def finish(self, manifest: Manifest) -> Bundle:
        """Complete `manifest` with the files' hashes, write it and put the bundle in the target's place.

        Raises UserError if the manifest contradicts the files, before anything is replaced.
        """
        complete = manifest.with_files(tuple(self._files[path] for path in sorted(self._files)))
        complete.validate()
        with self._explain_full_disk():
            self._replace_target(complete)
        return read_bundle(self.target)

    def _replace_target(self, complete: Manifest) -> None:
        with (self._partial / MANIFEST_NAME).open("xb") as out:
            out.write(complete.to_bytes())
        flush(self._partial / MANIFEST_NAME)
        for folder in {self._partial, *((self._partial / path).parent for path in self._files)}:
            flush(folder)
        replace_folder(self._partial, self.target)

    @contextlib.contextmanager
    def _explain_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise UserError(
                str(self.target),
                f"a full disk ({error.strerror})",
                "room for a whole bundle",
                "make room or choose another --out; an older bundle there is intact",
            ) from error

    def _create(self, path: str) -> Path:
        if self._lock is None:
            raise RuntimeError("BundleWriter is used outside its with block")
        if not is_inside(path) or path == MANIFEST_NAME:
            raise ValueError(f"{path!r} is not a file name inside a bundle")
        absolute = self._partial / path
        absolute.parent.mkdir(parents=True, exist_ok=True)
        return absolute

    def _note(self, path: str, size: int, sha256: str) -> FileEntry:
        self._files[path] = FileEntry(path, size, sha256)
        return self._files[path]


def _discard(partial: Path, target: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    restore_folder(target)


def _is_bundle(folder: Path) -> bool:
    manifest = folder / MANIFEST_NAME
    return manifest.is_file() and b'"format_version"' in manifest.read_bytes()


def _lock_folder(folder: Path, target: Path) -> int:
    """Lock `folder` for this process. The system releases the lock when the process ends, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        still_ours = folder.exists() and os.path.samestat(os.fstat(lock), folder.stat())
    except BlockingIOError:
        still_ours = False
    if not still_ours:
        os.close(lock)
        raise UserError(str(target), "another build that is writing it", "one build at a time", "wait and build again")
    return lock
