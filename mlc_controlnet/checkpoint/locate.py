"""Find the file or folder of what the user names: a path, a bundled model or a hub id."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from mlc_controlnet.checkpoint.diffusers_folder import weight_files
from mlc_controlnet.checkpoint.hub import HubFile, download, download_folder, list_files, parse_hub_id
from mlc_controlnet.checkpoint.loaded import PART_OF
from mlc_controlnet.checkpoint.sharded import is_index, read_shard_names
from mlc_controlnet.checkpoint.source import PARTS
from mlc_controlnet.checkpoint.vae import other_half
from mlc_controlnet.checkpoint.weight_file import SUFFIXES
from mlc_controlnet.components import COMPONENTS, CONTROLNET, TEXT_ENCODER, TEXT_ENCODER_2
from mlc_controlnet.errors import UserError, print_notice
from mlc_controlnet.locations import BUNDLED_MODELS

# peft's file of weights, without its suffix, and the file of its options beside it.
ADAPTER_STEM = "adapter_model"
ADAPTER_CONFIG = "adapter_config.json"


def model_name(model: str) -> str:
    """Return the name of a bundle of this model, without folders, organisation, revision and suffix.

    `.` and `..` have the name of the folder that they stand for. Characters that a file name or a web address cannot
    hold become dashes. A name that has no others becomes `model` with a hash, so that two such models have two bundles.
    """
    hub = None if Path(model).exists() else parse_hub_id(model)
    path = Path(model) if hub is None else Path(hub.file or hub.repo)
    if path.name in ("", ".."):  # of `.`, and of what ends in `..`
        path = path.resolve()
    name = path.stem if path.suffix in SUFFIXES else path.name
    cleaned = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")
    return cleaned or f"model-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def find_model(
    model: str, components: Sequence[str] = COMPONENTS, exact: bool = False, *, with_vae: bool = True
) -> Path:
    """Return the folder or file of a model: of a path, of a bundled model's name, or of a hub id, in this order.

    Args:
        components: a download from the hub contains only the weights that these need.
        exact: download weights as they were trained, if the hub has them, and not rounded to float16.
        with_vae: whether a download contains the weights of the model's VAE.

    Raises:
        UserError: there is no such model.
    """
    path = Path(model)
    local = find_local_model(model)
    if local == path and model in _bundled_models():
        print_notice(f"model {model}: this is {path.absolute()}, not the bundled model of the same name")
    if local is not None:
        return local
    hub = None if path.exists() else parse_hub_id(model)
    if hub is not None:
        parts = {PART_OF[name] for name in components if name in PART_OF}
        if TEXT_ENCODER in parts:
            parts |= {TEXT_ENCODER_2}  # of a model that has one
        parts = parts | {"vae"} if with_vae else parts - {"vae"}  # the latent preview is fitted with its encoder
        return download(hub) if hub.file else _download_model(hub, parts, exact)
    names = ", ".join(_bundled_models())
    raise UserError(
        subject="model",
        got=f"{model!r}, which has no model_index.json" if path.is_dir() else f"{model!r}, which does not exist",
        wanted=f"a folder in diffusers' layout, a single file, a bundled model ({names}) or a hub id org/name",
        remedy="pass --model with one of these",
    )


def find_local_model(model: str) -> Path | None:
    """Return the file or folder of a path or of a bundled model's name, in this order; None if there is neither."""
    path = Path(model)
    if path.is_file() or _is_model(path):
        return path
    return BUNDLED_MODELS / model if model in _bundled_models() else None


def _is_model(folder: Path) -> bool:
    """Return whether the folder is in diffusers' layout. Some models made by hand have no model_index.json."""
    return (folder / "model_index.json").is_file() or (folder / "unet" / "config.json").is_file()


def _bundled_models() -> list[str]:
    return sorted(path.parent.name for path in BUNDLED_MODELS.glob("*/model_index.json"))


def find_weights(text: str, option: str, exact: bool = False) -> Path:
    """Return the file or folder of a ControlNet, for example: of a path or of a hub id.

    Args:
        option: the option at fault, for the error.
        exact: see `find_model`.

    Raises:
        UserError: there is none.
    """
    path = Path(text)
    if path.exists():
        return path
    hub = parse_hub_id(text)
    if hub is None:
        raise UserError(option, f"{text!r}, which does not exist", "a file, a folder or a hub id", "check the spelling")
    if hub.file:
        _download_config(hub, hub.file)
        return download(hub)
    files = list_files(hub)
    return download_folder(hub, ["config.json", *_pick_weights(files, "", "controlnet", hub, exact)])


def _download_config(hub: HubFile, file: str) -> None:
    """Download the configuration that lies beside a file of weights, if the file is where diffusers puts it."""
    if PurePosixPath(file).name not in weight_files(CONTROLNET):
        return
    beside = PurePosixPath(file).with_name("config.json").as_posix()
    if beside in list_files(hub):
        download(HubFile(hub.repo, beside, hub.revision))


def find_lora(text: str) -> Path:
    """Return the file of a LoRA: of a path or of a hub id. A folder or repository holds one under a usual name.

    The configuration of a file of peft's comes with it.

    Raises:
        UserError: there is none.
    """
    path = Path(text)
    if path.is_dir():
        return path / _lora_file([file.name for file in path.iterdir()], f"--lora {text}")
    hub = None if path.exists() else parse_hub_id(text)
    if hub is None:
        return find_weights(text, "--lora")
    files = list_files(hub)
    file = PurePosixPath(hub.file or _lora_file(files, f"--lora {hub}"))
    beside = file.with_name(ADAPTER_CONFIG).as_posix()
    if file.stem == ADAPTER_STEM and beside in files:
        download(HubFile(hub.repo, beside, hub.revision))
    return download(HubFile(hub.repo, file.as_posix(), hub.revision))


def _lora_file(files: Sequence[str], subject: str) -> str:
    stems = ("pytorch_lora_weights", ADAPTER_STEM)  # diffusers', peft's
    names = [stem + suffix for suffix in (".safetensors", ".bin") for stem in stems]
    for name in names:
        if name in files:
            return name
    raise UserError(subject, "none of the usual files", f"one of {', '.join(names)}", "name the file: FOLDER/FILE")


def find_vae(text: str) -> Path:
    """Return the file or folder of a VAE: of a path or of a hub id. A hub file that is half of a tiny autoencoder
    brings the other half.

    Raises:
        UserError: there is none.
    """
    path = find_weights(text, "--vae")
    hub = None if Path(text).exists() else parse_hub_id(text)
    if hub is not None and hub.file:
        other = other_half(Path(hub.file))
        if other is not None and other.as_posix() in list_files(hub):
            download(HubFile(hub.repo, other.as_posix(), hub.revision))
    return path


def _download_model(hub: HubFile, parts: set[str], exact: bool) -> Path:
    files = list_files(hub)
    if "model_index.json" not in files:
        raise UserError(
            f"hub id {hub}",
            "no model_index.json",
            "a model in diffusers' layout",
            f"name one of its files: {hub.repo}/FILE.safetensors",
        )
    light = [name for name in files if name.endswith((".json", ".txt")) and name.count("/") <= 1 and not is_index(name)]
    heavy = [
        weights
        for part in PARTS
        if part in parts
        for folder in _folders(files, part)
        for weights in _pick_weights(files, folder, part, hub, exact)
    ]
    return download_folder(hub, [*light, *heavy])


def _folders(files: Sequence[str], part: str) -> list[str]:
    """List the folders of a part: several ControlNets are in controlnet, controlnet_1, ..."""
    pattern = re.compile(rf"{part}(_\d+)?/config\.json" if part == "controlnet" else rf"{part}/config\.json")
    return [name.removesuffix("config.json") for name in files if pattern.fullmatch(name)]


def _pick_weights(files: Sequence[str], folder: str, part: str, hub: HubFile, exact: bool) -> list[str]:
    """Return the smallest form of a part's weights, because a bundle stores float16 anyway; or the exact one.

    Weights in shards are their index and every shard.
    """

    def rank(name: str) -> tuple[bool, bool]:
        pickled, rounded = ".safetensors" not in name, ".fp16." in name
        return (rounded, pickled) if exact else (pickled, not rounded)

    for name in sorted(weight_files(part), key=rank):
        if folder + name not in files:
            continue
        if not is_index(name):
            return [folder + name]
        index = download(HubFile(hub.repo, folder + name, hub.revision))
        return [folder + name, *(folder + shard for shard in read_shard_names(index))]
    names = ", ".join(name for name in weight_files(part) if not is_index(name))
    raise UserError(f"hub id {hub}", f"no weights in {folder or 'it'}", f"one of {names}", "name a file")
