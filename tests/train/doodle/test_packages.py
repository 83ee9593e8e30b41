import base64
from pathlib import Path

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.doodle import packages
from tests.train.doodle.conftest import changed


def test_an_archive_that_is_there_is_not_fetched(shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert packages.fetch(packages.DRAWINGS[0], shapes).parent == shapes


def test_an_archive_of_another_hash_is_refused(shapes: Path) -> None:
    other = changed(packages.DRAWINGS[0], integrity=base64.b64encode(bytes(64)).decode())
    with pytest.raises(UserError, match=r"shapes-glossy-1\.0\.0\.tgz: got sha512-"):
        packages.fetch(other, shapes)


def test_without_npm_the_message_says_where_to_put_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=f"archive of names@1.0.0 .* into {tmp_path}"):
        packages.fetch(changed(packages.NAMES, name="names", version="1.0.0"), tmp_path)


def test_what_npm_says_reaches_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no such version' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UserError, match="got no such version"):
        packages.fetch(packages.NAMES, tmp_path / "archives")
    assert not list((tmp_path / "archives").iterdir())


def test_a_member_that_is_missing_is_named(shapes: Path) -> None:
    with pytest.raises(UserError, match=r"no plain chars\.json"):
        packages.read_json(packages.fetch(packages.DRAWINGS[0], shapes), "chars.json")


def test_every_pinned_package_has_a_licence_that_weights_can_carry() -> None:
    assert {package.licence for package in packages.DRAWINGS} <= {"MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0"}
