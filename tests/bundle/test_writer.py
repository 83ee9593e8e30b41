import dataclasses
import errno
import hashlib
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mlc_controlnet.bundle.reader import read_bundle, verify_bundle
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.errors import UserError

from .conftest import FILES, write_bundle


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_bundle_holds_its_files_and_their_hashes(bundle_path):
    entries = {entry.path: entry for entry in read_bundle(bundle_path).manifest.files}
    assert {path: entry.sha256 for path, entry in entries.items()} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }
    assert {path: data for path, data in tree(bundle_path).items() if path != "manifest.json"} == FILES


def test_the_same_content_gives_the_same_bundle_hash(tmp_path, manifest):
    first = write_bundle(tmp_path / "first", manifest)
    second = write_bundle(tmp_path / "second", manifest)
    assert first.sha256 == second.sha256


def test_a_copied_file_and_written_bytes_are_the_same(tmp_path, manifest):
    source = tmp_path / "library"
    source.write_bytes(FILES["tiny-float32.so"])
    with BundleWriter(tmp_path / "tiny") as writer:
        copied = writer.add_file("tiny-float32.so", source)
    with BundleWriter(tmp_path / "tiny") as writer:
        assert writer.add_bytes("tiny-float32.so", FILES["tiny-float32.so"]) == copied


def test_a_build_that_fails_leaves_nothing_behind(tmp_path, manifest):
    with pytest.raises(ZeroDivisionError), BundleWriter(tmp_path / "tiny-llvm") as writer:
        writer.add_bytes("params/00.bin", b"1234")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_the_older_bundle_intact(bundle_path):
    before = tree(bundle_path)
    with pytest.raises(KeyboardInterrupt), BundleWriter(bundle_path) as writer:
        writer.add_bytes("params/00.bin", b"1234")
        raise KeyboardInterrupt
    assert tree(bundle_path) == before
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_a_disk_that_fills_at_any_moment_leaves_a_whole_bundle(bundle_path, manifest, monkeypatch):
    """Each call that needs room fails in a build of its own."""
    with monkeypatch.context() as patch:
        needed = len(fill_the_disk(patch, 0, lambda: write_bundle(bundle_path, manifest)))
    assert needed > 15
    for fails_at in range(1, needed + 1):
        before = tree(bundle_path)
        newer = dataclasses.replace(manifest, versions={"mlc_controlnet": f"0.{fails_at}.0"})
        with monkeypatch.context() as patch, pytest.raises(UserError, match=r"No space left on device.*make room"):
            fill_the_disk(patch, fails_at, lambda: write_bundle(bundle_path, newer))  # noqa: B023 - called at once
        is_newer = verify_bundle(bundle_path).manifest.versions == newer.versions
        assert is_newer if fails_at == needed else tree(bundle_path) == before  # the last comes after both renames
    write_bundle(bundle_path, manifest)
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def fill_the_disk(patch, fails_at, work):
    """Do `work` while the `fails_at`-th call to the system that needs room fails; returns what calls there were."""
    calls = []

    def failing(name, real):
        def call(*arguments, **options):
            needs_room = {"open": lambda: arguments[1] == "xb", "mkdir": lambda: not Path(arguments[0]).is_dir()}
            if needs_room.get(name, lambda: True)():
                calls.append(name)
                if len(calls) == fails_at:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    for module, name in ((os, "mkdir"), (os, "rename"), (os, "fsync"), (io, "open")):
        patch.setattr(module, name, failing(name, getattr(module, name)))
    work()
    return calls


def test_a_file_that_outgrows_the_disk_is_named(bundle_path, manifest):
    """A limit on the size of files makes the system refuse a write, as a full disk does."""
    before = tree(bundle_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(UserError, match="make room"), BundleWriter(bundle_path) as writer:
            writer.add_bytes("params/00.bin", bytes(2**20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(bundle_path) == before
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_a_manifest_that_contradicts_its_files_replaces_nothing(bundle_path, manifest):
    before = tree(bundle_path)
    with pytest.raises(UserError, match="samplers"), BundleWriter(bundle_path) as writer:
        for path in FILES.keys() - {"samplers.json"}:
            writer.add_bytes(path, FILES[path])
        writer.finish(manifest)
    assert tree(bundle_path) == before


def test_a_newer_bundle_takes_the_place_of_the_older_one(bundle_path, manifest):
    newer = dataclasses.replace(manifest, versions={"mlc_controlnet": "0.2.0"})
    write_bundle(bundle_path, newer)
    assert verify_bundle(bundle_path).manifest.versions == {"mlc_controlnet": "0.2.0"}
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_what_a_killed_build_left_is_cleared_away(tmp_path, manifest):
    script = (
        "import os, sys; from pathlib import Path; from mlc_controlnet.bundle.writer import BundleWriter\n"
        "with BundleWriter(Path(sys.argv[1])) as writer: writer.add_bytes('params/07.bin', b'x' * 100); os._exit(9)"
    )
    target = tmp_path / "tiny-llvm"
    assert subprocess.run([sys.executable, "-c", script, str(target)], check=False).returncode == 9
    assert not target.exists()
    write_bundle(target, manifest)
    assert set(tree(target)) == {*FILES, "manifest.json"}
    assert list(tmp_path.iterdir()) == [target]


def test_the_older_bundle_returns_when_a_build_was_killed_between_its_two_renames(bundle_path):
    before = tree(bundle_path)
    bundle_path.rename(bundle_path.with_name(".previous-tiny-llvm"))
    with BundleWriter(bundle_path):
        pass
    assert tree(bundle_path) == before


def test_two_builds_of_one_bundle_do_not_mix(tmp_path):
    with (
        BundleWriter(tmp_path / "tiny-llvm") as first,
        pytest.raises(UserError, match="another build"),
        BundleWriter(tmp_path / "tiny-llvm"),
    ):
        first.add_bytes("params/00.bin", b"1234")


def test_where_a_disk_is_mounted_nothing_can_be_replaced():
    """As the folders that a container shares with its host. A rename there would fail at the end of the build."""
    with (
        pytest.raises(UserError, match=r"/: got where a disk is mounted.* inside it, such as /bundle"),
        BundleWriter(Path("/")),
    ):
        pass


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    with pytest.raises(UserError, match="something that is not a bundle"), BundleWriter(tmp_path / "photos"):
        pass
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"


def test_a_file_name_that_leaves_the_bundle_is_our_bug(tmp_path):
    with pytest.raises(ValueError, match="outside"), BundleWriter(tmp_path / "tiny") as writer:
        writer.add_bytes("../outside", b"")
