"""Writes and reads checkpoints, each of them whole or not at all.

`files.whole_folder` writes a checkpoint, so every `step-...` folder is complete, even after a power failure. Older
checkpoints are deleted only afterwards. Checkpoints hold only safetensors and JSON, so reading one runs no code.
"""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import PARTIAL, whole_folder

_DELETED = ".deleted-"


def name_of(step: int) -> str:
    """Return the folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def newest(folder: Path) -> Path | None:
    """Return the checkpoint of the latest step below `folder`; None if there is none."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def save(folder: Path, step: int, write: Callable[[Path], None], limit: int) -> Path:
    """Let `write` fill a new checkpoint, make it durable, then delete all but the newest `limit`.

    Raises UserError if the disk is full or refuses the writing; the older checkpoints are intact then.
    """
    target = folder / name_of(step)
    if target.is_dir():
        return target
    clean(folder)
    before = newest(folder)
    write_folder(target, write, f"{before} is intact" if before else "there is no checkpoint before it")
    for old in sorted(folder.glob("step-*"))[:-limit]:
        grave = folder / f"{_DELETED}{old.name}"
        old.rename(grave)  # a half deleted folder must not look like a checkpoint
        shutil.rmtree(grave)
    return target


def set_aside(path: Path) -> Path | None:
    """Rename what an earlier run wrote to `path`, so that a new run can start. Return its new name; None if there is
    nothing.
    """
    if not path.exists():
        return None
    aside = next(
        name for number in itertools.count(1) if not (name := path.with_name(f"{path.name}-{number}")).exists()
    )
    return path.rename(aside)


def write_folder(target: Path, write: Callable[[Path], None], remedy: str = "nothing else is lost") -> Path:
    """Let `write` fill a new folder, make it durable, and replace `target` by it.

    Raises UserError if the disk is full or refuses the writing; `target` is as it was then.
    """
    try:
        with whole_folder(target) as partial:
            write(partial)
    except (OSError, SafetensorError) as error:
        raise UserError(
            str(target), str(error), "a disk that takes it", f"make room and start again; {remedy}"
        ) from error
    return target


def clean(folder: Path) -> None:
    """Remove what a killed process left unfinished."""
    for leftover in [*folder.glob(f"{PARTIAL}*"), *folder.glob(f"{_DELETED}*")]:
        shutil.rmtree(leftover)


def write_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Write the optimizer's state into `folder`: its tensors and its numbers, a file each."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.detach().contiguous().cpu()
            else:
                numbers[f"{index}.{key}"] = value
    save_file(tensors, folder / "optimizer.safetensors")
    (folder / "optimizer.json").write_text(json.dumps(numbers), encoding="utf-8")


def read_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the state that `write_optimizer` wrote. The optimizer keeps its own learning rate and betas.

    State that has the shape of its weight also gets its memory order: torch's fused AdamW pairs the two by their place
    in memory, so that in channels-last order it would give weights the state of others.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    values: dict[str, Any] = dict(load_file(folder / "optimizer.safetensors"))
    values |= json.loads((folder / "optimizer.json").read_text(encoding="utf-8"))
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        index, _, key = name.partition(".")
        weight = weights[int(index)]
        if isinstance(value, torch.Tensor) and value.shape == weight.shape:
            value = torch.empty_like(weight, dtype=value.dtype, requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
