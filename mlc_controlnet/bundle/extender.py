"""Add files to a bundle in place. Nothing that is there is copied or changed, except the manifest.

New files are written into a hidden folder next to the bundle, as those of a new one are. At the end they move into the
bundle, under names that its manifest does not list, and then the new manifest takes the old one's place in one rename.
Whatever stops the program, there is the old bundle or the new one, and both are sound.
"""

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.manifest import FileEntry, Manifest
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import flush, write_bytes


class BundleExtender(BundleWriter):
    """Collects the files to add to one bundle; `finish` moves them there and replaces the manifest.

        with BundleExtender(bundle) as writer:
            writer.add_bytes("params/07.bin", shard)
            bundle = writer.finish(manifest)

    A block that ends without `finish` leaves the bundle as it was. One process at a time can write a bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.path)
        self.bundle = bundle

    def __enter__(self) -> "BundleExtender":
        super().__enter__()
        if read_bundle(self.target).sha256 != self.bundle.sha256:
            self.__exit__(None, None, None)
            raise UserError(str(self.target), "another build that has changed it", "one at a time", "try again")
        return self

    def finish(self, manifest: Manifest) -> Bundle:
        """Complete `manifest` with the hashes of all files, old and new, and put it in the old one's place.

        Raises UserError if the manifest contradicts the files, before anything is changed.
        """
        entries: dict[str, FileEntry] = {entry.path: entry for entry in self.bundle.manifest.files}
        entries |= self._files
        complete = manifest.with_files(tuple(entries[path] for path in sorted(entries)))
        complete.validate()
        with self._explain_full_disk():
            self._move_files()
            write_bytes(self.target / MANIFEST_NAME, complete.to_bytes())
        return read_bundle(self.target)

    def _note(self, path: str, size: int, sha256: str) -> FileEntry:
        if any(entry.path == path for entry in self.bundle.manifest.files):
            raise ValueError(f"{path} is a file of the bundle, which does not change")
        return super()._note(path, size, sha256)

    def _move_files(self) -> None:
        for path in self._files:
            (self.target / path).parent.mkdir(parents=True, exist_ok=True)
            (self._partial / path).replace(self.target / path)
        for folder in {(self.target / path).parent for path in self._files}:
            flush(folder)
