"""Read tensors from a file: safetensors, or a torch file, which is parsed without running any code of it.

Both kinds are mapped into memory. A tensor occupies memory when it is read, and the operating system can take that
memory back; that of a safetensors file is given back (mapped_tensors.py).
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mlc_controlnet.checkpoint.adapter_file import check_is_not_an_adapter
from mlc_controlnet.checkpoint.mapped_tensors import map_tensors
from mlc_controlnet.checkpoint.quantized_file import check_is_not_gguf, check_is_not_quantized
from mlc_controlnet.errors import UserError

TORCH_SUFFIXES = (".ckpt", ".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)

Value = TypeVar("Value")


@dataclass(frozen=True)
class WeightFile:
    """The tensors of one file, by the file's own names.

    Attributes:
        metadata: the metadata of a safetensors header; empty for a torch file.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    metadata: Mapping[str, str]


def read_weights(path: Path) -> WeightFile:
    """Parse a file of weights.

    Raises:
        UserError: the file is missing, of another kind, quantized already, an adapter or damaged, its pickle would run
            code, or it holds something that is not a tensor.
    """
    _check_suffix(path)
    file = _read_torch(path) if path.suffix in TORCH_SUFFIXES else _read_safetensors(path)
    check_is_not_quantized(path, file.tensors)
    check_is_not_an_adapter(path, file.tensors)
    _check_are_weights(file)
    return WeightFile(file.path, without_wrappers(file.tensors), file.metadata)


def read_content(path: Path) -> object:
    """Parse a file in which tensors may lie deeper: what `torch.save` wrote, or the tensors of a safetensors file.

    Raises:
        UserError: the file is missing, of another kind or damaged, or its pickle would run code.
    """
    _check_suffix(path)
    return _load_torch(path) if path.suffix in TORCH_SUFFIXES else _read_safetensors(path).tensors


def _check_suffix(path: Path) -> None:
    if not path.is_file():
        raise UserError(str(path), "no such file", "weights as safetensors", "check that the model was saved whole")
    check_is_not_gguf(path)
    _check_is_not_a_stand_in(path)
    if path.suffix not in SUFFIXES:
        raise UserError(str(path), f"a {path.suffix or 'nameless'} file", f"one of {', '.join(SUFFIXES)}", "convert it")


def _check_is_not_a_stand_in(path: Path) -> None:
    """Raise UserError for what git and browsers store under the name of a file that they did not get."""
    with path.open("rb") as file:
        beginning = file.read(64).lstrip().lower()
    if beginning.startswith(b"version https://git-lfs"):
        remedy = "run `git lfs pull` in its repository"
        raise UserError(str(path), "a pointer of Git LFS instead of the file", "the weights", remedy)
    if beginning.startswith((b"<!doctype html", b"<html")):
        remedy = "download the file itself: on the hub, its address has /resolve/ instead of /blob/"
        raise UserError(str(path), "a web page under the name of the file", "the weights", remedy)


def without_wrappers(tensors: dict[str, Value]) -> dict[str, Value]:
    """Drop from the names what torch.compile (`_orig_mod.`) and DistributedDataParallel (`module.`) add to them."""
    names = {key: ".".join(name for name in key.split(".") if name != "_orig_mod") for key in tensors}
    if all(name.startswith("module.") for name in names.values()):
        names = {key: name.removeprefix("module.") for key, name in names.items()}
    return (
        {names[key]: tensor for key, tensor in tensors.items()} if len(set(names.values())) == len(names) else tensors
    )


def _read_safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a file, not a dict
            return WeightFile(path, map_tensors(path, tensors), file.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, "safetensors", error) from error


class _ModelCheckpoint:
    """Stands for the class that PyTorch Lightning names, and never calls, in Stable Diffusion's own .ckpt files."""


# Numbers of numpy: losses and step counts, which training loops of 2022 kept together with the weights. NumPy 2 moved
# the module that makes them, and files name the old one.
_NUMPY_DTYPES = [type(np.dtype(kind)) for kind in "?bhilqBHILQefd"]
_HARMLESS = [
    nn.ParameterDict,  # of sd-webui's textual inversions of 2022
    (_ModelCheckpoint, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *dict.fromkeys(_NUMPY_DTYPES),
]


def _read_torch(path: Path) -> WeightFile:
    content = _load_torch(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise UserError(str(path), f"a {type(content).__name__}", "tensors by name", "save the model's state_dict")
    return WeightFile(path, {str(key): value for key, value in content.items()}, {})


def _load_torch(path: Path) -> Any:
    # Without this check torch parses a legacy file to its end before it refuses to map it.
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if not is_archive:
        raise UserError(
            str(path),
            "no zip archive, which torch has written since version 1.6",
            "a whole torch file",
            "copy or download it again, or convert it to safetensors",
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            str(path),
            f"a pickle that asks for more than tensors ({_refused_name(error)})",
            "weights only: nothing in the file is run",
            "get the model as safetensors, and do not open this file elsewhere",
        ) from error
    except Exception as error:  # torch's reader raises many kinds for a broken archive
        raise _damaged(path, "torch file", error) from error


def _refused_name(error: BaseException) -> str:
    """Return the name of what the pickle asked for, without torch's advice on how to switch the protection off."""
    name = re.search(r"GLOBAL (\S+)", str(error))
    return name.group(1) if name else "an operation beyond building tensors"


def _check_are_weights(file: WeightFile) -> None:
    for key, tensor in file.tensors.items():
        if not isinstance(tensor, torch.Tensor):
            kind = type(tensor).__name__
            raise UserError(f"{file.path}: {key}", f"a {kind}", "a tensor", "save only the model's state_dict")


def _damaged(path: Path, kind: str, error: Exception) -> UserError:
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(str(path), f"a damaged file ({cause})", f"a whole {kind}", "copy or download it again")
