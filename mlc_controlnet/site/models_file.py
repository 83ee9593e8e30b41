"""models.json: the bundles of a site, for the page's list of models. The newest comes first, and opens first."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mlc_controlnet.bundle.manifest import Manifest
from mlc_controlnet.errors import UserError

MODELS_NAME = "models.json"
FORMAT = 1


@dataclass(frozen=True)
class Listing:
    """What a manifest does not say of a model.

    Attributes:
        licence: for example Apache-2.0, or CreativeML Open RAIL-M; "" if unknown.
        picture: a picture's file, shown beside the name.
        mirrors: addresses of the same bundle on other hosts, asked in their order where this site has it not.
    """

    licence: str = ""
    picture: Path | None = None
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelEntry:
    """One bundle of a site.

    Attributes:
        path: its folder below the site, with / at the end.
        picture: an address below the site; "" without one.
        kinds: what its control images show, one for each ControlNet: a kind if it is known, else the name.
        sizes: width and height of its pictures, in pixels; the first is the default.
        bytes: what a browser fetches: weights, tokenizers, samplers and the largest of the libraries.
        memory_bytes: of GPU memory, in the modes resident and reduced, of its most modest library.
        needs: the WebGPU features that all of its libraries need.
        steps: denoising steps of a picture, unless told otherwise.
        inpaints: whether it only repaints pictures.
    """

    path: str
    name: str
    picture: str
    kinds: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    bytes: int
    memory_bytes: Mapping[str, int]
    needs: tuple[str, ...]
    steps: int
    inpaints: bool
    licence: str
    mirrors: tuple[str, ...]


def check_mirrors(mirrors: Sequence[str]) -> tuple[str, ...]:
    """Return the addresses with / at their end. Raises UserError for what is no address of a web server."""
    for mirror in mirrors:
        parts = urlsplit(mirror)
        if parts.scheme not in ("https", "http") or not parts.netloc or set(mirror) & set(" \"';,"):
            raise UserError("--mirror", repr(mirror), "the address of a bundle's folder", "write https://HOST/FOLDER/")
    return tuple(mirror if mirror.endswith("/") else f"{mirror}/" for mirror in mirrors)


def describe_model(manifest: Manifest, path: str, picture: str = "", listing: Listing | None = None) -> ModelEntry:
    """Return the entry of a bundle in the folder `path` of a site."""
    listing = Listing() if listing is None else listing
    libraries = {library.file for library in manifest.libraries}
    sizes = {entry.path: entry.bytes for entry in manifest.files}
    tokenizers = {tokenizer.file for tokenizer in (manifest.tokenizer, *manifest.more_tokenizers)}
    shared = {*manifest.params.shards, *tokenizers, manifest.samplers.file}  # twin: web/src/engine/own_bundle.ts
    needs = set.intersection(*(set(library.required_features) for library in manifest.libraries))
    plans = [manifest.memory[library.file] for library in manifest.libraries]
    return ModelEntry(
        path=path,
        name=manifest.model.name,
        picture=picture,
        kinds=tuple(controlnet.kind or controlnet.name for controlnet in manifest.controlnets),
        sizes=tuple((width, height) for height, width in manifest.sizes),
        bytes=sum(sizes[name] for name in shared) + max(sizes[name] for name in libraries),
        memory_bytes={
            "resident": min(plan.resident.peak_bytes for plan in plans),
            "reduced": min(plan.reduced.peak_bytes for plan in plans),
        },
        needs=tuple(sorted(needs)),
        steps=manifest.defaults.steps,
        inpaints=manifest.inpaints,
        licence=listing.licence,
        mirrors=listing.mirrors,
    )


def refresh(entry: ModelEntry, manifest: Manifest) -> ModelEntry:
    """Return the entry of the same folder after its bundle has changed."""
    listing = Listing(licence=entry.licence, mirrors=entry.mirrors)
    return describe_model(manifest, entry.path, entry.picture, listing)


def read_models(site: Path) -> list[ModelEntry]:
    """Return the entries of a site; none if it has no such file, or one of another format."""
    try:
        content = json.loads((site / MODELS_NAME).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            return []
        return [_entry_of(entry) for entry in content["models"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def models_text(entries: Sequence[ModelEntry]) -> str:
    """Return the content of the file."""
    content = {"format": FORMAT, "models": [dataclasses.asdict(entry) for entry in entries]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _entry_of(entry: dict[str, Any]) -> ModelEntry:
    lists = {name: tuple(entry[name]) for name in ("kinds", "needs", "mirrors")}
    sizes = tuple((int(width), int(height)) for width, height in entry["sizes"])
    names = {field.name for field in dataclasses.fields(ModelEntry)}
    return ModelEntry(**{**{name: entry[name] for name in names}, **lists, "sizes": sizes})
