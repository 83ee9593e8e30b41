import dataclasses
import gzip
import json
import os
import shlex
import shutil
import time
from pathlib import Path

import pytest

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import previous_of
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.site import build_site as module
from mlc_controlnet.site.build_site import build_site, check_site_folder, update_models
from mlc_controlnet.site.hosting import prepare_for_hosts
from mlc_controlnet.site.models_file import Listing, check_mirrors, read_models
from tests.bundle.conftest import FILES, write_bundle

PAGE = "<meta content=\"default-src 'self'; connect-src 'self'; base-uri 'none'\"><p>page"


@pytest.fixture
def bundle(tmp_path: Path, manifest: Manifest) -> Bundle:
    return bundle_named("tiny", tmp_path, manifest)


def bundle_named(name: str, folder: Path, manifest: Manifest) -> Bundle:
    """A complete bundle of a few kilobytes, of a model of this name."""
    model = dataclasses.replace(manifest.model, name=name)
    write_bundle(folder / f"{name}-webgpu", dataclasses.replace(manifest, model=model))
    return read_bundle(folder / f"{name}-webgpu")


@pytest.fixture
def carried_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a page in it."""
    page = tmp_path / "packaged" / "page"
    page.mkdir(parents=True)
    (page / "index.html").write_text(PAGE)
    (page / "assets").mkdir()
    (page / "assets" / "page-1a2b.js").write_text("let page;" * 100)
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(module, "IS_CHECKOUT", False)
    return page


def test_an_installed_package_copies_the_page_that_it_carries(
    tmp_path: Path, bundle: Bundle, carried_page: Path
) -> None:
    site = tmp_path / "site"
    build_site(bundle, site)
    (site / "of an older build").touch()
    build_site(bundle, site)
    assert (site / "index.html").read_text() == PAGE
    assert (site / "bundle" / "manifest.json").is_file()
    assert (site / THIRD_PARTY_LICENSES.name).read_bytes() == THIRD_PARTY_LICENSES.read_bytes()
    assert not (site / "of an older build").exists()


def test_the_command_that_serves_a_site_can_be_pasted_into_a_shell(
    tmp_path: Path, bundle: Bundle, carried_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "my site #2"
    build_site(bundle, site)
    command = capsys.readouterr().out.partition("open it with ")[2]
    assert shlex.split(command, comments=True)[-2:] == ["serve", str(site)]


def test_a_package_without_a_page_says_so_and_keeps_the_older_site(
    tmp_path: Path, bundle: Bundle, carried_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(carried_page)
    (tmp_path / "site").mkdir()
    build_site(bundle, tmp_path / "site")
    assert "this package was built without Node" in capsys.readouterr().out
    assert list((tmp_path / "site").iterdir()) == []


def test_a_checkout_without_nodes_packages_says_what_to_do(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "WEB", tmp_path)
    build_site(bundle, tmp_path / "site")
    assert "`npm ci` in web/" in capsys.readouterr().out
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("name", ["thesis.txt", "index.html", "models.json"])
def test_what_is_not_a_site_is_not_replaced(tmp_path: Path, bundle: Bundle, carried_page: Path, name: str) -> None:
    """Nor is a page of another kind."""
    site = tmp_path / "site"
    site.mkdir()
    check_site_folder(site)
    (site / name).write_text("precious")
    for replace in (check_site_folder, lambda folder: build_site(bundle, folder)):
        with pytest.raises(UserError, match="something that is not a site"):
            replace(site)
    assert [(path.name, path.read_text()) for path in site.iterdir()] == [(name, "precious")]


def test_a_site_whose_replacement_was_stopped_keeps_its_bundles(
    tmp_path: Path, bundle: Bundle, manifest: Manifest, carried_page: Path
) -> None:
    site = tmp_path / "site"
    build_site(bundle, site)
    site.rename(previous_of(site))
    build_site(bundle_named("other", tmp_path, manifest), site)
    assert [entry.name for entry in read_models(site)] == ["other", "tiny"]


def test_another_model_is_added_and_one_of_the_same_name_replaced(
    tmp_path: Path, manifest: Manifest, carried_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, picture = tmp_path / "site", tmp_path / "shown.png"
    picture.write_bytes(b"picture")
    build_site(bundle_named("tiny", tmp_path, manifest), site, Listing("MIT", picture))
    build_site(bundle_named("other", tmp_path, manifest), site)
    assert "site (with tiny): open it" in capsys.readouterr().out
    assert [(entry.path, entry.name) for entry in read_models(site)] == [
        ("bundles/other/", "other"),
        ("bundle/", "tiny"),
    ]
    assert (site / "pictures" / "tiny.png").read_bytes() == b"picture"
    again = dataclasses.replace(manifest, defaults=dataclasses.replace(manifest.defaults, steps=4))
    shutil.rmtree(tmp_path / "tiny-webgpu")
    build_site(bundle_named("tiny", tmp_path, again), site)
    newest, older = read_models(site)
    assert (newest.path, newest.steps, newest.picture, older.path) == ("bundle/", 4, "", "bundles/other/")
    for entry in (newest, older):
        assert read_bundle(site / entry.path).manifest.model.name == entry.name


def test_the_list_says_what_a_visitor_wants_to_know(tmp_path: Path, bundle: Bundle, carried_page: Path) -> None:
    build_site(bundle, tmp_path / "site", Listing("MIT", mirrors=("https://mirror.example/tiny/",)))
    content = json.loads((tmp_path / "site" / "models.json").read_text())
    assert content == {
        "format": 1,
        "models": [
            {
                "path": "bundle/",
                "name": "tiny",
                "picture": "",
                "kinds": [],
                "sizes": [[24, 16]],
                "bytes": sum(map(len, FILES.values())),
                "memory_bytes": {"resident": 1000, "reduced": 990},
                "needs": [],
                "steps": 20,
                "inpaints": False,
                "licence": "MIT",
                "mirrors": ["https://mirror.example/tiny/"],
            }
        ],
    }


def test_a_bundle_that_changes_later_changes_the_list(tmp_path: Path, bundle: Bundle, carried_page: Path) -> None:
    site = tmp_path / "site"
    build_site(bundle, site, Listing("MIT"))
    entry = site / "bundle" / "manifest.json"
    entry.write_text(entry.read_text().replace('"steps": 20', '"steps": 9'))
    update_models(site)
    (model,) = read_models(site)
    assert (model.steps, model.licence) == (9, "MIT")


def test_a_site_of_an_older_build_keeps_its_bundle(
    tmp_path: Path, bundle: Bundle, manifest: Manifest, carried_page: Path
) -> None:
    site = tmp_path / "site"
    build_site(bundle, site)
    (site / "models.json").unlink()
    build_site(bundle_named("other", tmp_path, manifest), site)
    assert [entry.name for entry in read_models(site)] == ["other", "tiny"]


def test_only_the_hosts_of_mirrors_are_added_to_the_policy(tmp_path: Path, bundle: Bundle, carried_page: Path) -> None:
    site = tmp_path / "site"
    mirrors = check_mirrors(["https://mirror.example:8443/a b".replace(" ", "%20")])
    build_site(bundle, site, Listing(mirrors=mirrors))
    allowed = "connect-src 'self' https://mirror.example:8443; "
    for name in ("index.html", "_headers", "nginx.conf"):
        text = (site / name).read_text()
        assert allowed in text
        assert "unsafe-inline" not in text and "'unsafe-eval'" not in text
    for bad in ("mirror.example/a", "ftp://mirror.example/", "https://a.example/; script-src *"):
        with pytest.raises(UserError, match="--mirror: got"):
            check_mirrors([bad])


def test_large_files_of_the_page_have_compressed_copies(tmp_path: Path, bundle: Bundle, carried_page: Path) -> None:
    build_site(bundle, tmp_path / "site")
    page = tmp_path / "site" / "assets" / "page-1a2b.js"
    assert gzip.decompress(page.with_name("page-1a2b.js.gz").read_bytes()) == page.read_bytes()
    assert not list((tmp_path / "site" / "bundle").rglob("manifest.json.gz"))  # another ControlNet changes it in place


def test_two_builds_that_end_at_the_same_time_are_both_in_the_site(
    tmp_path: Path, bundle: Bundle, manifest: Manifest, carried_page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, site, processes = bundle_named("other", tmp_path, manifest), tmp_path / "site", []

    def while_another_build_ends(folder: Path, mirrors: list[str]) -> None:
        if not processes:
            processes.append(os.fork())
            if processes == [0]:
                try:
                    build_site(other, site)
                finally:
                    os._exit(0)
            time.sleep(0.2)  # without a lock, the other one would have removed this one's folder by now
        prepare_for_hosts(folder, mirrors)

    monkeypatch.setattr(module, "prepare_for_hosts", while_another_build_ends)
    build_site(bundle, site)
    os.waitpid(processes[0], 0)
    assert [entry.name for entry in read_models(site)] == ["other", "tiny"]
