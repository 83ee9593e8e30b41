"""The drawings with their names: read from the packages, rendered once, and split into seen and held out."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlc_controlnet.errors import missing_package
from mlc_controlnet.files import whole_folder
from mlc_controlnet.train.doodle import packages

SIZE = 128  # pixels of a side
GROUPS = {0: "smileys", 1: "people", 3: "animals", 4: "food", 5: "places", 6: "activities", 7: "objects"}  # CLDR's
_JOINER = "200D"  # a sequence: a person with a trade, a family; nearly the drawing of the plain person
_CLOCK_FACE = re.compile(r"o’clock$|-thirty$")  # two dozen drawings that differ in a hand


@dataclass(frozen=True)
class Artwork:
    """A drawing of a thing in one style.

    Attributes:
        thing: its CLDR name in lower case, such as "cat face".
        keywords: CLDR's other words for it.
        group: a value of `GROUPS`.
        style: the word for the manner of the drawing, see `packages.DRAWINGS`.
    """

    thing: str
    keywords: tuple[str, ...]
    group: str
    style: str


@dataclass(frozen=True)
class ArtworkSet:
    """All drawings.

    Attributes:
        artworks: what each drawing shows.
        pixels: the drawings, not multiplied by alpha.  # [N, SIZE, SIZE, 4] uint8
    """

    artworks: tuple[Artwork, ...]
    pixels: np.ndarray

    def things(self) -> dict[str, list[int]]:
        """Return the rows of every thing, in the order of the set."""
        rows: dict[str, list[int]] = {}
        for row, artwork in enumerate(self.artworks):
            rows.setdefault(artwork.thing, []).append(row)
        return rows


@dataclass(frozen=True)
class Split:
    """Rows of an `ArtworkSet`. The model trains on `train` alone.

    Attributes:
        train: everything else.
        things: rows of things of which no drawing is in `train`.
        pictures: single drawings of things that `train` has in other styles.
    """

    train: list[int]
    things: list[int]
    pictures: list[int]


def split(artworks: ArtworkSet, held_out_things: int, held_out_pictures: int, seed: int, styles: int = 4) -> Split:
    """Hold out whole things and single pictures, both of things that are drawn in at least `styles` styles."""
    rng = np.random.default_rng([seed, 19])
    by_thing = artworks.things()
    drawn_often = [thing for thing, rows in by_thing.items() if len(rows) >= styles]
    order = [drawn_often[i] for i in rng.permutation(len(drawn_often))]
    things = {row for thing in order[:held_out_things] for row in by_thing[thing]}
    others = order[held_out_things : held_out_things + held_out_pictures]
    pictures = {int(rng.choice(by_thing[thing])) for thing in others}
    train = [row for row in range(len(artworks.artworks)) if row not in things | pictures]
    return Split(train, sorted(things), sorted(pictures))


def prepare(folder: Path, archives: Path, log: Callable[[str], None] = print) -> ArtworkSet:
    """Return the set in `folder`, rendered first if it is not there yet. Archives are fetched into `archives`.

    Raises:
        UserError: a package cannot be fetched or has another hash, or resvg-py is not installed.
    """
    if not folder.is_dir():
        names = _named_things(packages.read_json(packages.fetch(packages.NAMES, archives, log), "en/data.json"))
        artworks: list[Artwork] = []
        pictures: list[np.ndarray] = []
        for package in packages.DRAWINGS:
            icons = packages.read_json(packages.fetch(package, archives, log), "icons.json")
            before = len(artworks)
            for artwork, svg in _drawings(icons, names, str(package.style)):
                artworks.append(artwork)
                pictures.append(render(svg))
            log(f"{package.name}: {len(artworks) - before} drawings of {len(names)} things")
        write(folder, ArtworkSet(tuple(artworks), np.stack(pictures)))
    return read(folder)


def write(folder: Path, artworks: ArtworkSet) -> None:
    """Write the set, whole or not at all."""
    with whole_folder(folder) as partial:
        np.save(partial / "pixels.npy", artworks.pixels)
        described = [asdict(artwork) for artwork in artworks.artworks]
        (partial / "artworks.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def read(folder: Path) -> ArtworkSet:
    """Read what `write` wrote. The pixels stay on the disk and are read when they are used."""
    described = json.loads((folder / "artworks.json").read_text(encoding="utf-8"))
    artworks = tuple(Artwork(**{**entry, "keywords": tuple(entry["keywords"])}) for entry in described)
    return ArtworkSet(artworks, np.load(folder / "pixels.npy", mmap_mode="r"))


def render(svg: str) -> np.ndarray:
    """Draw an SVG on a transparent ground.  # [SIZE, SIZE, 4] uint8, not multiplied by alpha

    Raises:
        UserError: resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise missing_package("resvg-py") from error
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def slug(name: str) -> str:
    """Return the name under which Iconify's sets list a drawing, such as "mans-shoe" for "man’s shoe"."""
    return re.sub(r"[^\w]+", "-", re.sub(r"[’'“”!.]", "", name.lower())).strip("-")


def _named_things(entries: list[dict[str, Any]]) -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return slug -> name, keywords and group of every thing, without sequences, symbols, flags and clock faces."""
    return {
        slug(entry["label"]): (entry["label"].lower(), tuple(entry.get("tags", ())), GROUPS[entry["group"]])
        for entry in entries
        if entry.get("group") in GROUPS and _JOINER not in entry["hexcode"] and not _CLOCK_FACE.search(entry["label"])
    }


def _drawings(
    icons: dict[str, Any], names: dict[str, tuple[str, tuple[str, ...], str]], style: str
) -> Iterator[tuple[Artwork, str]]:
    """Yield every named thing of an icon set of Iconify, as an SVG."""
    for key, (thing, keywords, group) in names.items():
        alias = icons.get("aliases", {}).get(key, {})
        icon = icons["icons"].get(alias.get("parent", key))
        if icon is None or alias.keys() - {"parent"}:  # an alias that also turns or flips is another drawing
            continue
        width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
        left, top = icon.get("left", 0), icon.get("top", 0)
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{SIZE}" height="{SIZE}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
        )
        yield Artwork(thing, keywords, group, style), svg
