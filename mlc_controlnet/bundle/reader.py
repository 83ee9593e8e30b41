"""Read a bundle and verify every byte of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.manifest import FileEntry, Manifest
from mlc_controlnet.errors import UserError

REMEDY = "build the bundle again with python -m mlc_controlnet build, or copy it again"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk with a sound manifest. Its other files are verified when they are read."""

    path: Path
    manifest: Manifest
    sha256: str  # of manifest.json, which holds the hash of every other file

    def read_file(self, name: str) -> bytes:
        """Return the content of one listed file, after verifying its size and hash.

        Raises UserError if it is missing, short, long or altered.
        """
        entry = self._entry(name)
        path = self.path / name
        data = path.read_bytes() if path.is_file() else None
        if fault := _fault(entry, None if data is None else (len(data), hashlib.sha256(data).hexdigest())):
            raise UserError(str(path), *fault, REMEDY)
        assert data is not None
        return data

    def verified_path(self, name: str) -> Path:
        """Verify size and hash of one listed file and return its path, for files that are memory-mapped."""
        path = self.path / name
        if fault := _fault(self._entry(name), _measure(path)):
            raise UserError(str(path), *fault, REMEDY)
        return path

    def check_sizes(self) -> None:
        """Look for every listed file, without reading any: quick for whoever reads them only later.

        Raises UserError if one is missing or has another size.
        """
        for entry in self.manifest.files:
            path = self.path / entry.path
            size = path.stat().st_size if path.is_file() else None
            if size != entry.bytes:
                got = "no such file" if size is None else f"{size} bytes"
                raise UserError(str(path), got, f"{entry.bytes} bytes", REMEDY)

    def _entry(self, name: str) -> FileEntry:
        for entry in self.manifest.files:
            if entry.path == name:
                return entry
        raise KeyError(f"{name} is not listed in {self.path / MANIFEST_NAME}")


def read_bundle(path: Path | str) -> Bundle:
    """Read and validate the manifest of the bundle at `path`; the files that it lists are not read yet.

    Raises UserError if there is no bundle or its manifest is not sound.
    """
    folder = Path(path)
    manifest_path = folder / MANIFEST_NAME
    if not manifest_path.is_file():
        got = f"a folder without {MANIFEST_NAME}" if folder.is_dir() else "no such folder"
        raise UserError(
            str(folder),
            got,
            "a bundle",
            "build one with python -m mlc_controlnet build --target llvm and pass its folder",
        )
    data = manifest_path.read_bytes()
    manifest = Manifest.from_bytes(data, where=str(manifest_path))
    return Bundle(folder, manifest, hashlib.sha256(data).hexdigest())


def verify_bundle(path: Path | str) -> Bundle:
    """Read the bundle at `path` and hash each of its files.

    Raises UserError that lists every missing, short, long or altered file with both sizes and hashes.
    """
    bundle = read_bundle(path)
    measured = ((entry, _fault(entry, _measure(bundle.path / entry.path))) for entry in bundle.manifest.files)
    faults = [(entry.path, *fault) for entry, fault in measured if fault]
    if faults:
        got = "; ".join(f"{name}: {found}" for name, found, _ in faults)
        wanted = "; ".join(f"{name}: {expected}" for name, _, expected in faults)
        raise UserError(str(bundle.path), got, wanted, REMEDY)
    return bundle


def _measure(path: Path) -> tuple[int, str] | None:
    """Return the size in bytes and the sha256 of a file; None if it does not exist."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _fault(entry: FileEntry, found: tuple[int, str] | None) -> tuple[str, str] | None:
    """Describe the found and the expected file in words; None if they agree."""
    wanted = f"{entry.bytes} bytes, sha256 {entry.sha256}"
    if found is None:
        return "no such file", wanted
    size, sha256 = found
    if (size, sha256) == (entry.bytes, entry.sha256):
        return None
    kind = "altered" if size == entry.bytes else "short" if size < entry.bytes else "long"
    return f"{size} bytes, sha256 {sha256} ({kind})", wanted
