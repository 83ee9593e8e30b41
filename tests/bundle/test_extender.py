"""Files are added to a bundle in place, or not at all."""

import dataclasses
from pathlib import Path

import pytest

from mlc_controlnet.bundle import extender
from mlc_controlnet.bundle.extender import BundleExtender
from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.params import ParamRecord
from mlc_controlnet.bundle.reader import read_bundle, verify_bundle
from mlc_controlnet.bundle.writer import BundleWriter
from mlc_controlnet.errors import UserError

SHARD, DATA = "params/01.bin", b"12345678"


def extended(manifest: Manifest) -> Manifest:
    """The manifest with one more weight, in a shard of its own."""
    params = manifest.params
    record = ParamRecord("more", (4,), "float16", len(params.shards), 0, len(DATA))
    more = dataclasses.replace(
        params,
        bytes=params.bytes + len(DATA),
        shards=(*params.shards, SHARD),
        records=(*params.records, record),
    )
    return dataclasses.replace(manifest, params=more)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_added_and_no_other_is_touched(bundle_path: Path) -> None:
    before, files = read_bundle(bundle_path), tree(bundle_path)
    inodes = {path: (bundle_path / path).stat().st_ino for path in files if path != "manifest.json"}
    with BundleExtender(before) as writer:
        writer.add_bytes(SHARD, DATA)
        after = writer.finish(extended(before.manifest))
    assert verify_bundle(bundle_path).sha256 == after.sha256 != before.sha256
    assert {path: (bundle_path / path).stat().st_ino for path in inodes} == inodes
    assert tree(bundle_path).keys() == files.keys() | {SHARD}
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


def test_a_run_that_is_stopped_leaves_the_old_bundle(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, before = read_bundle(bundle_path), tree(bundle_path)
    with pytest.raises(KeyboardInterrupt), BundleExtender(bundle) as writer:
        writer.add_bytes(SHARD, DATA)
        raise KeyboardInterrupt
    assert tree(bundle_path) == before

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), BundleExtender(bundle) as writer:
        writer.add_bytes(SHARD, DATA)
        patch.setattr(extender, "write_bytes", stop)  # the shard is there, and the manifest is the old one
        writer.finish(extended(bundle.manifest))
    assert verify_bundle(bundle_path).sha256 == bundle.sha256
    with BundleExtender(bundle) as writer:  # the next run replaces what no manifest lists
        writer.add_bytes(SHARD, DATA)
        writer.finish(extended(bundle.manifest))
    verify_bundle(bundle_path)


def test_a_manifest_that_contradicts_the_files_changes_nothing(bundle_path: Path) -> None:
    bundle, before = read_bundle(bundle_path), tree(bundle_path)
    with pytest.raises(UserError, match="params"), BundleExtender(bundle) as writer:
        writer.add_bytes(SHARD, DATA[:4])
        writer.finish(extended(bundle.manifest))
    assert tree(bundle_path) == before


def test_a_file_of_the_bundle_does_not_change(bundle_path: Path) -> None:
    bundle, before = read_bundle(bundle_path), tree(bundle_path)
    with pytest.raises(ValueError, match=r"params/00\.bin is a file of the bundle"), BundleExtender(bundle) as writer:
        writer.add_bytes("params/00.bin", DATA)
    assert tree(bundle_path) == before


def test_a_bundle_that_is_being_written_or_was_changed_is_refused(bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    with BundleWriter(bundle_path), pytest.raises(UserError, match="another build that is writing it"):
        BundleExtender(bundle).__enter__()
    with BundleExtender(bundle) as writer:
        writer.add_bytes(SHARD, DATA)
        writer.finish(extended(bundle.manifest))
    with pytest.raises(UserError, match="another build that has changed it"), BundleExtender(bundle):
        pass
