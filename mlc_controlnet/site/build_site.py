"""The demo site: the page with bundles next to it, ready for any static host."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.errors import UserError, print_notice
from mlc_controlnet.files import check_replaceable, locked, restore_folder, whole_folder, write_text
from mlc_controlnet.locations import IS_CHECKOUT, PAGE, THIRD_PARTY_LICENSES, WEB
from mlc_controlnet.site.hosting import prepare_for_hosts
from mlc_controlnet.site.models_file import (
    MODELS_NAME,
    Listing,
    ModelEntry,
    describe_model,
    models_text,
    read_models,
    refresh,
)

FIRST_BUNDLE = "bundle/"
PICTURES = "pictures"


def check_site_folder(site: Path) -> None:
    """Raise UserError if `build_site` would replace something that is not an older site.

    A site has a page and, beside it, a list of models; before there was a list, it had one bundle.
    """
    has_models = (site / MODELS_NAME).is_file() or (site / FIRST_BUNDLE / MANIFEST_NAME).is_file()
    check_replaceable(site, has_models and (site / "index.html").is_file(), "a site")


def build_site(bundle: Bundle, site: Path, listing: Listing | None = None) -> None:
    """Put the demo page and a copy of `bundle` into the folder `site`.

    The site's other bundles stay; one of the same model is replaced. The page opens the newest. Builds that end at the
    same time wait for each other here.

    In a checkout, Vite builds the page. An installed package copies the page that it carries. If neither is possible,
    this prints why and leaves `site` as it was.

    Raises UserError if `site` holds something that is not an older site.
    """
    has_node = IS_CHECKOUT and (WEB / "node_modules").is_dir() and shutil.which("npm") is not None
    if not has_node and not PAGE.is_dir():
        reason = (
            "it needs Node 20 and `npm ci` in web/; `make demo` does both"
            if IS_CHECKOUT
            else "this package was built without Node and carries no page; install it from a complete wheel"
        )
        print(f"the demo page was not built: {reason}")
        return
    site = site.resolve()
    site.parent.mkdir(parents=True, exist_ok=True)
    with locked(site.parent / f".lock-{site.name}", wait=True):
        others = _replace_site(bundle, site, Listing() if listing is None else listing, has_node)
    also = f" (with {', '.join(entry.name for entry in others)})" if others else ""
    print(f"{site}{also}: open it with python -m mlc_controlnet serve {shlex.quote(str(site))}")


def _replace_site(bundle: Bundle, site: Path, listing: Listing, has_node: bool) -> list[ModelEntry]:
    """Write the site anew, with the page that Vite builds or else the package's; return the entries of other models."""
    restore_folder(site)  # whose replacement was stopped in the middle: its bundles are needed now
    check_site_folder(site)
    name = bundle.manifest.model.name
    earlier = present_models(site)
    others = [entry for entry in earlier if entry.name != name]
    path = next((entry.path for entry in earlier if entry.name == name), f"bundles/{name}/" if others else FIRST_BUNDLE)
    with whole_folder(site) as partial:
        if has_node:
            subprocess.run(["npm", "run", "--silent", "build", "--", "--outDir", str(partial)], cwd=WEB, check=True)
        else:
            shutil.copytree(PAGE, partial, dirs_exist_ok=True)
        for entry in others:
            shutil.copytree(site / entry.path, partial / entry.path, copy_function=_link)
            if entry.picture:
                (partial / PICTURES).mkdir(exist_ok=True)
                _link(str(site / entry.picture), str(partial / entry.picture))
        shutil.copytree(bundle.path, partial / path)
        entries = [describe_model(bundle.manifest, path, _copy_picture(listing, partial, name), listing), *others]
        (partial / MODELS_NAME).write_text(models_text(entries), encoding="utf-8")
        shutil.copy(THIRD_PARTY_LICENSES, partial)
        prepare_for_hosts(partial, [mirror for entry in entries for mirror in entry.mirrors])
    return others


def present_models(site: Path) -> list[ModelEntry]:
    """Return the entries of the bundles that a site has, as they are now. One that cannot be read is left out."""
    listed = {entry.path: entry for entry in read_models(site)}
    found: list[ModelEntry] = []
    for path in dict.fromkeys([*listed, FIRST_BUNDLE]):
        file = site / path / MANIFEST_NAME
        if not file.is_file():
            continue
        try:
            manifest = Manifest.from_bytes(file.read_bytes(), str(file))
        except UserError as error:
            print_notice(f"left out of the site: {error}")
            continue
        found.append(refresh(listed[path], manifest) if path in listed else describe_model(manifest, path))
    return found


def update_models(site: Path) -> None:
    """Write models.json again, after a bundle of the site has changed."""
    write_text(site / MODELS_NAME, models_text(present_models(site)))


def _copy_picture(listing: Listing, site: Path, name: str) -> str:
    """Copy the picture of a model into a site; returns its address there."""
    if listing.picture is None:
        return ""
    (site / PICTURES).mkdir(exist_ok=True)
    address = f"{PICTURES}/{name}{listing.picture.suffix}"
    shutil.copy(listing.picture, site / address)
    return address


def _link(source: str, target: str) -> None:
    """Give a file a second name: bundles have gigabytes. Where links are not possible, copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
