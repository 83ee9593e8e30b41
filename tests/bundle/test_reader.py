import hashlib

import pytest

from mlc_controlnet.bundle.reader import read_bundle, verify_bundle
from mlc_controlnet.errors import UserError

from .conftest import FILES


def test_a_sound_bundle_verifies_and_its_hash_is_the_manifests(bundle_path):
    manifest_bytes = (bundle_path / "manifest.json").read_bytes()
    assert verify_bundle(bundle_path).sha256 == hashlib.sha256(manifest_bytes).hexdigest()


def test_a_missing_folder_says_how_to_build_one(tmp_path):
    with pytest.raises(
        UserError, match=r"got no such folder, wanted a bundle; build one with python -m mlc_controlnet build"
    ):
        read_bundle(tmp_path / "none")


def test_a_folder_without_manifest_is_not_a_bundle(bundle_path):
    (bundle_path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"got a folder without manifest.json, wanted a bundle; build one"):
        read_bundle(bundle_path)


DAMAGES = {
    "no such file": lambda path: path.unlink(),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "altered": lambda path: path.write_bytes(b"\xaa" + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["params/00.bin", "tiny-float32.so"])
def test_a_damaged_file_is_named_with_both_sizes_and_hashes(bundle_path, name, damage):
    DAMAGES[damage](bundle_path / name)
    bundle = read_bundle(bundle_path)
    for read in (
        lambda: verify_bundle(bundle_path),
        lambda: bundle.read_file(name),
        lambda: bundle.verified_path(name),
    ):
        with pytest.raises(UserError, match=damage) as caught:
            read()
        message = str(caught.value)
        assert name in message
        assert f"{len(FILES[name])} bytes, sha256 {hashlib.sha256(FILES[name]).hexdigest()}" in message
        if (bundle_path / name).exists():
            damaged = (bundle_path / name).read_bytes()
            assert f"{len(damaged)} bytes, sha256 {hashlib.sha256(damaged).hexdigest()}" in message


def test_all_damaged_files_are_named_at_once(bundle_path):
    (bundle_path / "params/00.bin").unlink()
    (bundle_path / "samplers.json").write_bytes(b"[]")
    with pytest.raises(UserError, match=r"params/00.bin: no such file; samplers.json: 2 bytes"):
        verify_bundle(bundle_path)


def test_a_sound_file_is_read_whole(bundle_path):
    assert read_bundle(bundle_path).read_file("params/00.bin") == FILES["params/00.bin"]


@pytest.mark.parametrize("damage", ["no such file", "short", "long"])
def test_a_file_that_is_missing_or_cut_is_found_without_reading_it(bundle_path, damage):
    bundle = read_bundle(bundle_path)
    bundle.check_sizes()
    DAMAGES[damage](bundle_path / "params/00.bin")
    got = damage if damage == "no such file" else rf"\d+ bytes, wanted {len(FILES['params/00.bin'])} bytes;"
    with pytest.raises(UserError, match=rf"params/00.bin: got {got}"):
        bundle.check_sizes()
