"""Packages with a handful of drawn shapes, as npm packs them, so that no test fetches anything."""

import base64
import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.train.doodle import artworks, packages
from mlc_controlnet.train.doodle.artworks import ArtworkSet
from mlc_controlnet.train.doodle.packages import Package

SHAPES = {
    "red disc": '<circle cx="16" cy="16" r="12" fill="#e02832"/>',
    "blue box": '<path d="M5 5h22v22H5z" fill="#2d7ddc"/>',
    "green bar": '<path d="M3 12h26v8H3z" fill="#28733a"/>',
    "yellow tip": '<path d="M16 3l12 24H4z" fill="#ffd73c"/>',
}
STYLES = ("glossy", "flat")


def entries() -> list[dict[str, Any]]:
    named = [{"label": name, "tags": name.split(), "hexcode": "1F4A0", "group": 7} for name in SHAPES]
    left_out = {
        "group": {"label": "check mark", "hexcode": "2714", "group": 8},
        "sequence": {"label": "red disc: pilot", "hexcode": "1F4A0-200D-2708", "group": 7},
        "clock": {"label": "two-thirty", "hexcode": "1F55D", "group": 5},
        "no group": {"label": "regional indicator A", "hexcode": "1F1E6"},
    }
    return [*named, *left_out.values()]


def icons() -> dict[str, Any]:
    drawn = {artworks.slug(name): {"body": body} for name, body in SHAPES.items()}
    drawn["check-mark"] = drawn["two-thirty"] = {"body": SHAPES["blue box"]}
    drawn["bar"] = drawn.pop("green-bar")
    return {"icons": drawn, "aliases": {"green-bar": {"parent": "bar"}}, "width": 32, "height": 32}


def pack(folder: Path, name: str, style: str | None, member: str, content: object) -> Package:
    data, file = json.dumps(content).encode(), io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"package/{member}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(file.getvalue()).digest()).decode()
    package = Package(name, "1.0.0", digest, "CC0-1.0", "this test", style)
    folder.mkdir(exist_ok=True)
    (folder / package.file_name).write_bytes(file.getvalue())
    return package


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of archives, which the pinned packages are for the session of tests."""
    folder = tmp_path_factory.mktemp("packages")
    sets = tuple(pack(folder, f"@shapes/{style}", style, "icons.json", icons()) for style in STYLES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packages, "DRAWINGS", sets)
        patch.setattr(packages, "NAMES", pack(folder, "names", None, "en/data.json", entries()))
        yield folder


@pytest.fixture(scope="session")
def artwork_set(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> ArtworkSet:
    """Eight drawings: four things in two styles."""
    return artworks.prepare(tmp_path_factory.mktemp("artworks") / "set", shapes, lambda line: None)


def changed(package: Package, **fields: Any) -> Package:
    return dataclasses.replace(package, **fields)
