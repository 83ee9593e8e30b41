"""Read a ControlNet from a folder in diffusers' layout, from one file in diffusers' or the original layout, or from a
Control-LoRA.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mlc_controlnet.checkpoint import ldm_config, ldm_names
from mlc_controlnet.checkpoint.control_lora import is_control_lora, read_control_lora
from mlc_controlnet.checkpoint.controlnet_names import kind_of_control, short_name, unique
from mlc_controlnet.checkpoint.diffusers_folder import controlnet_folders, read_part_folder, weight_files
from mlc_controlnet.checkpoint.ldm_config import Shapes
from mlc_controlnet.checkpoint.ldm_names import CONTROLNET_PREFIX
from mlc_controlnet.checkpoint.options import union_refused
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.components import CONTROLNET, kind_of, numbered
from mlc_controlnet.errors import UserError

_ORIGINAL = "input_hint_block.0.weight"
_UNION = "task_embedding"  # of a ControlNet for many kinds of control image at once
_DIFFUSERS = "controlnet_cond_embedding.conv_in.weight"


def read_controlnet(path: Path, unet: PartSource | None = None) -> PartSource:
    """Read the configuration of the ControlNet at `path`, or infer it from the shapes of the file's tensors.

    All 14 kinds of ControlNet 1.1 (arXiv 2302.05543) share one layout.

    Args:
        unet: the base model's, which a Control-LoRA needs.

    Raises:
        UserError: there is no ControlNet at `path`, it is damaged, or it is a Control-LoRA of another base model.
    """
    if path.is_dir():
        inside = path / "controlnet"
        return read_part_folder(inside if (inside / "config.json").is_file() else path, "controlnet")
    file = read_weights(path)
    if is_control_lora(file):
        return read_control_lora(file, unet, pools=_pools(path))
    # A file where diffusers puts it has its options beside it, of which tensors and name do not show all.
    if path.name in weight_files(CONTROLNET) and _DIFFUSERS in file.tensors and path.with_name("config.json").is_file():
        return read_part_folder(path.parent, CONTROLNET, path)
    return controlnet_of(file)


def read_controlnets(
    paths: Mapping[str, Path], unet: PartSource | None = None, taken: Sequence[str] = ()
) -> dict[str, PartSource]:
    """Read the ControlNets at `paths`, by name. In a folder with several, as diffusers saves them, each has its own.

    Args:
        unet: the base model's, which a Control-LoRA needs.
        taken: names that these ControlNets cannot have.

    Raises:
        UserError: as `read_controlnet` does.
    """
    named: dict[str, PartSource] = {}
    for name, path in paths.items():
        folders = [path] if (path / "config.json").is_file() else controlnet_folders(path)
        if len(folders) <= 1:
            named[name] = read_controlnet(path, unet)
            continue
        several = {numbered(CONTROLNET, i + 1): read_controlnet(folder) for i, folder in enumerate(folders)}
        for own, source in own_controlnets(several).items():
            named[unique(own, [*paths, *named, *taken])] = source
    return named


def own_controlnets(parts: Mapping[str, PartSource]) -> dict[str, PartSource]:
    """Return a model's own ControlNets, by name: what diffusers noted that each was loaded from, or controlnet."""
    named: dict[str, PartSource] = {}
    for part, source in parts.items():
        if kind_of(part) == CONTROLNET:
            origin = source.config.get("_name_or_path")
            named[unique(short_name(origin) if isinstance(origin, str) else CONTROLNET, named)] = source
    return named


def kinds_of(controlnets: Mapping[str, PartSource]) -> dict[str, str]:
    """Return the kind of control image of each ControlNet, as its name, or else its file or folder, tells."""
    return {
        name: kind_of_control(name) or kind_of_control(short_name(source.where)) for name, source in controlnets.items()
    }


def controlnet_of(file: WeightFile) -> PartSource:
    """Return the ControlNet in a file, which may hold its base model too.

    Raises:
        UserError: there is no ControlNet in it.
    """
    if _UNION in file.tensors:
        raise union_refused(str(file.path))
    if CONTROLNET_PREFIX + _ORIGINAL in file.tensors:
        return _read_original(file, CONTROLNET_PREFIX)
    if _ORIGINAL in file.tensors:
        return _read_original(file, "")
    if _DIFFUSERS in file.tensors:
        return _read_diffusers(file)
    raise UserError(
        f"controlnet {file.path}",
        f"{len(file.tensors)} tensors, none of them {_ORIGINAL} or {_DIFFUSERS}",
        "a ControlNet for Stable Diffusion 1.x, 2.x or XL",
        "pass another file; a whole model goes to --model and a LoRA to --lora",
    )


def _read_original(file: WeightFile, prefix: str) -> PartSource:
    tensors = {key.removeprefix(prefix): value for key, value in file.tensors.items() if key.startswith(prefix)}
    where = str(file.path)
    is_second = _is_linear(tensors.get("input_blocks.1.1.proj_in.weight"))
    base = ldm_config.base_model(is_second, "label_emb.0.0.weight" in tensors)
    config = ldm_config.controlnet_config(base, Shapes(tensors, "", where))
    config["global_pool_conditions"] = _pools(file.path)
    return PartSource(where, config, partial(ldm_names.convert_controlnet, tensors, config, where))


def _read_diffusers(file: WeightFile) -> PartSource:
    where = str(file.path)
    is_second = _is_linear(file.tensors.get("down_blocks.0.attentions.0.proj_in.weight"))
    shapes = Shapes(file.tensors, "", where)
    base = ldm_config.base_model(is_second, "add_embedding.linear_1.weight" in file.tensors)
    config = ldm_config.controlnet_config(base, shapes, in_diffusers_names=True)
    config["global_pool_conditions"] = _pools(file.path)
    return PartSource(where, config, lambda: file.tensors)


def _pools(file: Path) -> bool:
    """Return whether it is the one kind of ControlNet 1.1 that averages its residuals. Only the file's name says so."""
    return "shuffle" in file.stem.lower()


def _is_linear(projection: object) -> bool:
    """Return whether the projections around a transformer are linear layers (2.x), not 1x1 convolutions (1.x)."""
    return getattr(projection, "ndim", 4) == 2
