"""Read a ControlNet from a folder in diffusers' layout, from one file in diffusers' or the original layout, or from a
Control-LoRA.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from mlc_controlnet.checkpoint import ldm_config, ldm_names
from mlc_controlnet.checkpoint.control_lora import is_control_lora, read_control_lora
from mlc_controlnet.checkpoint.controlnet_names import kind_of_control, short_name, unique
from mlc_controlnet.checkpoint.diffusers_folder import controlnet_folders, read_part_folder, weight_files
from mlc_controlnet.checkpoint.ldm_config import Shapes
from mlc_controlnet.checkpoint.ldm_names import CONTROLNET_PREFIX
from mlc_controlnet.checkpoint.modules import with_defaults
from mlc_controlnet.checkpoint.options import UNION_CLASS, is_union
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.union_controlnet import TASKS, of_control_type, union_options
from mlc_controlnet.checkpoint.weight_file import WeightFile, read_weights
from mlc_controlnet.components import CONTROLNET, kind_of, numbered
from mlc_controlnet.errors import UserError

_ORIGINAL = "input_hint_block.0.weight"
_DIFFUSERS = "controlnet_cond_embedding.conv_in.weight"


def read_controlnet(path: Path, unet: PartSource | None = None, control_type: str = "") -> PartSource:
    """Read the configuration of the ControlNet at `path`, or infer it from the shapes of the file's tensors.

    All 14 kinds of ControlNet 1.1 (arXiv 2302.05543) share one layout.

    Args:
        unet: the base model's, which a Control-LoRA needs.
        control_type: which a union ControlNet needs; "" for any other.

    Raises:
        UserError: there is no ControlNet at `path`, it is damaged, it is a Control-LoRA of another base model, or it
            lacks the control type.
    """
    return of_control_type(_read_any(path, unet, bool(control_type)), control_type)


def _read_any(path: Path, unet: PartSource | None, must_be_union: bool) -> PartSource:
    """Read a ControlNet of one kind of control image, or a union ControlNet of all its types."""
    if path.is_dir():
        inside = path / "controlnet"
        return _read_folder(inside if (inside / "config.json").is_file() else path, must_be_union)
    file = read_weights(path)
    if is_control_lora(file):
        return read_control_lora(file, unet, pools=_pools(path))
    # A file where diffusers puts it has its options beside it, of which tensors and name do not show all.
    if path.name in weight_files(CONTROLNET) and _DIFFUSERS in file.tensors and path.with_name("config.json").is_file():
        return _read_folder(path.parent, must_be_union, path)
    return controlnet_of(file)


def _read_folder(folder: Path, must_be_union: bool, weights: Path | None = None) -> PartSource:
    """Read a folder in diffusers' layout. Only the weights may tell that it is a union ControlNet."""
    source = read_part_folder(folder, CONTROLNET, weights)
    if is_union(source.config):
        return source
    if must_be_union:
        return _as_told_by_weights(source, source.read())
    return dataclasses.replace(source, read=partial(_read_one_kind, source))


def _as_told_by_weights(source: PartSource, tensors: Mapping[str, torch.Tensor]) -> PartSource:
    """Return the ControlNet with the configuration of a union ControlNet if its weights are one's."""
    if TASKS not in tensors:
        return source
    config = {**source.config, "_class_name": UNION_CLASS, **union_options(tensors)}
    return dataclasses.replace(source, config=with_defaults(CONTROLNET, config, source.where))


def _read_one_kind(source: PartSource) -> dict[str, torch.Tensor]:
    tensors = source.read()
    of_control_type(_as_told_by_weights(source, tensors), "")  # a union ControlNet would need a control type
    return tensors


def read_controlnets(
    paths: Mapping[str, Path],
    unet: PartSource | None = None,
    taken: Sequence[str] = (),
    control_types: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, PartSource]:
    """Read the ControlNets at `paths`, by name. In a folder with several, as diffusers saves them, each has its own.

    Args:
        unet: the base model's, which a Control-LoRA needs.
        taken: names that these ControlNets cannot have.
        control_types: of union ControlNets, by name.

    Raises:
        UserError: as `read_controlnet` does.
    """
    named: dict[str, PartSource] = {}
    for name, path in paths.items():
        control_type = control_types.get(name, "")
        folders = [path] if (path / "config.json").is_file() else controlnet_folders(path)
        if len(folders) <= 1:
            named[name] = read_controlnet(path, unet, control_type)
            continue
        several = {
            numbered(CONTROLNET, i + 1): read_controlnet(folder, None, control_type) for i, folder in enumerate(folders)
        }
        for own, source in own_controlnets(several).items():
            named[unique(own, [*paths, *named, *taken])] = source
    return named


def own_controlnets(parts: Mapping[str, PartSource]) -> dict[str, PartSource]:
    """Return a model's own ControlNets, by name: what diffusers noted that each was loaded from, or controlnet.

    Raises:
        UserError: one is a union ControlNet, whose control type nobody chose.
    """
    named: dict[str, PartSource] = {}
    for part, source in parts.items():
        if kind_of(part) == CONTROLNET:
            origin = source.config.get("_name_or_path")
            chosen = source if source.control_type else of_control_type(source, "")
            named[unique(short_name(origin) if isinstance(origin, str) else CONTROLNET, named)] = chosen
    return named


def kinds_of(controlnets: Mapping[str, PartSource]) -> dict[str, str]:
    """Return the kind of control image of each ControlNet: its control type, or what its name, file or folder tells."""
    return {
        name: source.control_type or kind_of_control(name) or kind_of_control(short_name(source.where))
        for name, source in controlnets.items()
    }


def controlnet_of(file: WeightFile) -> PartSource:
    """Return the ControlNet in a file, which may hold its base model too; of a union ControlNet, all its types.

    Raises:
        UserError: there is no ControlNet in it.
    """
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
    if TASKS in file.tensors:
        config |= {"_class_name": UNION_CLASS, **union_options(file.tensors)}
    return PartSource(where, config, lambda: file.tensors)


def _pools(file: Path) -> bool:
    """Return whether it is the one kind of ControlNet 1.1 that averages its residuals. Only the file's name says so."""
    return "shuffle" in file.stem.lower()


def _is_linear(projection: object) -> bool:
    """Return whether the projections around a transformer are linear layers (2.x), not 1x1 convolutions (1.x)."""
    return getattr(projection, "ndim", 4) == 2
