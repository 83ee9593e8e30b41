"""From what the user names - a bundled model, a path, a hub id - to a file or a folder on this machine."""

from collections.abc import Sequence
from pathlib import Path

from mlc_controlnet.checkpoint.diffusers_folder import weight_files
from mlc_controlnet.checkpoint.hub import HubFile, download, download_folder, list_files, parse_hub_id
from mlc_controlnet.checkpoint.loaded import PART_OF
from mlc_controlnet.checkpoint.source import PARTS
from mlc_controlnet.checkpoint.weight_file import SUFFIXES
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import BUNDLED_MODELS


def model_name(model: str) -> str:
    """What a bundle of this model is called: without folders, organisation, revision and suffix."""
    hub = None if Path(model).exists() else parse_hub_id(model)
    path = Path(model) if hub is None else Path(hub.file or hub.repo)
    return path.stem if path.suffix in SUFFIXES else path.name


def find_model(model: str, components: Sequence[str] = COMPONENTS, exact: bool = False) -> Path:
    """The folder or file of a bundled model's name, a path or a hub id.

    From the hub only the weights that `components` need are downloaded; `exact`: as they were trained, where the hub
    has them, and not rounded to float16, as a bundle stores them.

    Raises:
        UserError: there is no such model.
    """
    for folder in (BUNDLED_MODELS / model, Path(model)):
        if (folder / "model_index.json").is_file():
            return folder
    path = Path(model)
    if path.is_file():
        return path
    hub = None if path.exists() else parse_hub_id(model)
    if hub is not None:
        parts = {PART_OF[name] for name in components} | {"vae"}
        return download(hub) if hub.file else _download_model(hub, parts, exact)
    bundled = ", ".join(sorted(p.parent.name for p in BUNDLED_MODELS.glob("*/model_index.json")))
    raise UserError(
        subject="model",
        got=f"{model!r}, which has no model_index.json" if path.is_dir() else f"{model!r}, which does not exist",
        wanted=f"a bundled model ({bundled}), a folder in diffusers' layout, a single file or a hub id org/name",
        remedy="pass --model with one of these",
    )


def find_weights(text: str, option: str, exact: bool = False) -> Path:
    """The file or folder that a ControlNet or a LoRA is in: a path or a hub id. `exact`: see `find_model`.

    Raises:
        UserError: there is none; `option` names the option at fault.
    """
    path = Path(text)
    if path.exists():
        return path
    hub = parse_hub_id(text)
    if hub is None:
        raise UserError(option, f"{text!r}, which does not exist", "a file, a folder or a hub id", "check the spelling")
    if hub.file:
        return download(hub)
    files = list_files(hub)
    return download_folder(hub, ["config.json", *_pick_weights(files, "", "controlnet", hub, exact)])


def _download_model(hub: HubFile, parts: set[str], exact: bool) -> Path:
    files = list_files(hub)
    if "model_index.json" not in files:
        raise UserError(
            f"hub id {hub}",
            "no model_index.json",
            "a model in diffusers' layout",
            f"name one of its files: {hub.repo}/FILE.safetensors",
        )
    light = [name for name in files if name.endswith((".json", ".txt")) and name.count("/") <= 1]
    heavy = [
        weights
        for part in PARTS
        if part in parts and f"{part}/config.json" in files
        for weights in _pick_weights(files, f"{part}/", part, hub, exact)
    ]
    return download_folder(hub, [*light, *heavy])


def _pick_weights(files: Sequence[str], folder: str, part: str, hub: HubFile, exact: bool) -> list[str]:
    """The smallest form, since a bundle stores float16 anyway, or the exact one."""

    def rank(name: str) -> tuple[bool, bool]:
        pickled, rounded = ".safetensors" not in name, ".fp16." in name
        return (rounded, pickled) if exact else (pickled, not rounded)

    names = sorted(weight_files(part), key=rank)
    for name in names:
        if folder + name in files:
            return [folder + name]
    raise UserError(f"hub id {hub}", f"no weights in {folder or 'it'}", f"one of {', '.join(names)}", "name a file")
