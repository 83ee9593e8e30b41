import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.site import build_site as module
from mlc_controlnet.site.build_site import build_site, check_site_folder


@pytest.fixture
def bundle(tmp_path: Path) -> SimpleNamespace:
    """What build_site reads of a bundle: its folder."""
    (tmp_path / "circles-webgpu").mkdir()
    (tmp_path / "circles-webgpu" / "manifest.json").write_text("{}")
    return SimpleNamespace(path=tmp_path / "circles-webgpu")


@pytest.fixture
def carried_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a page in it."""
    page = tmp_path / "packaged" / "page"
    page.mkdir(parents=True)
    (page / "index.html").write_text("<p>page")
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(module, "IS_CHECKOUT", False)
    return page


def test_an_installed_package_copies_the_page_that_it_carries(
    tmp_path: Path, bundle: SimpleNamespace, carried_page: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "of an older build").touch()
    build_site(bundle, site)  # type: ignore[arg-type]
    assert (site / "index.html").read_text() == "<p>page"
    assert (site / "bundle" / "manifest.json").is_file()
    assert (site / THIRD_PARTY_LICENSES.name).read_bytes() == THIRD_PARTY_LICENSES.read_bytes()
    assert not (site / "of an older build").exists()


def test_the_command_that_serves_a_site_can_be_pasted_into_a_shell(
    tmp_path: Path, bundle: SimpleNamespace, carried_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "my site #2"
    build_site(bundle, site)  # type: ignore[arg-type]
    command = capsys.readouterr().out.partition("open it with ")[2]
    assert shlex.split(command, comments=True)[-2:] == ["serve", str(site)]


def test_a_package_without_a_page_says_so_and_keeps_the_older_site(
    tmp_path: Path, bundle: SimpleNamespace, carried_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(carried_page)
    (tmp_path / "site").mkdir()
    build_site(bundle, tmp_path / "site")  # type: ignore[arg-type]
    assert "this package was built without Node" in capsys.readouterr().out
    assert list((tmp_path / "site").iterdir()) == []


def test_a_checkout_without_nodes_packages_says_what_to_do(
    tmp_path: Path, bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WEB", tmp_path)
    build_site(bundle, tmp_path / "site")  # type: ignore[arg-type]
    assert "`npm ci` in web/" in capsys.readouterr().out
    assert not (tmp_path / "site").exists()


def test_what_is_not_a_site_is_not_replaced(tmp_path: Path) -> None:
    check_site_folder(tmp_path / "new")
    check_site_folder(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="something that is not a site"):
        check_site_folder(tmp_path)
    (tmp_path / "index.html").touch()
    check_site_folder(tmp_path)
