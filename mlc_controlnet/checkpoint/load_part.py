"""Load one part of a model: build its module without values, then assign the file's, rounded as a bundle stores them.

Float16 tensors of a file stay where they are, mapped into memory. They occupy memory when they are read, until they
are given back (mapped_tensors.py) or the operating system takes that memory.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mlc_controlnet.checkpoint.loaded import some
from mlc_controlnet.checkpoint.mapped_tensors import give_back
from mlc_controlnet.checkpoint.modules import build_empty
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.checkpoint.union_controlnet import share_tensors
from mlc_controlnet.checkpoint.weight_update import Updates, WeightUpdate
from mlc_controlnet.components import kind_of
from mlc_controlnet.errors import UserError

FLOAT16_MAX = 65504.0
FLOAT16_EXPONENT = 0x7C00


def load_parts(sources: dict[str, PartSource], updates: Updates) -> dict[str, nn.Module]:
    """Load parts, and take each source away when its part is loaded: its file stays mapped until then.

    Parts that are control types of one union ControlNet have the same tensors where these are equal.

    Raises:
        UserError: as `load_part`.
    """
    modules: dict[str, nn.Module] = {}
    unions: dict[str, str] = {}  # part -> its file
    for part in tuple(sources):
        source = sources.pop(part)
        modules[part] = load_part(source, part, updates)
        if source.control_type:
            unions[part] = source.where
            share_tensors({union: modules[union] for union in unions}, unions)
    return modules


def load_part(source: PartSource, part: str, updates: Updates) -> nn.Module:
    """Build a part's module and assign its weights, rounded to float16.

    Raises:
        UserError: a tensor is missing, unknown, of another shape or not finite.
    """
    module = build_empty(source, kind_of(part))
    weights = source.read()
    _check_against(module, weights, source, part)
    # Round, assign and release one tensor at a time.
    for key in list(weights):
        name = f"{part}.{key}"
        owner, _, leaf = key.rpartition(".")
        changes = (*source.updates.get(key, ()), *updates.get(name, ()))
        setattr(module.get_submodule(owner), leaf, _as_stored(weights.pop(key), name, changes))
    for name, buffer in module.named_buffers():
        # Buffers such as position ids are not in the file and not weights. A meta module has no values for them.
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, torch.zeros_like(buffer, device="cpu"), persistent=False)
    return module.eval().requires_grad_(False)


def _check_against(module: nn.Module, weights: Mapping[str, torch.Tensor], source: PartSource, part: str) -> None:
    wanted = dict(module.named_parameters())
    missing, unknown = [k for k in wanted if k not in weights], [k for k in weights if k not in wanted]
    if missing or unknown:
        raise UserError(
            subject=f"{part} {source.where}",
            got="a file that "
            + " and ".join(
                [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(unknown)} too many"] * bool(unknown)
            ),
            wanted=f"the {len(wanted)} tensors of its configuration",
            remedy="check that configuration and weights belong together",
        )
    for key, tensor in weights.items():
        if tensor.shape != wanted[key].shape:
            raise UserError(
                subject=f"{part}.{key}",
                got=str(list(tensor.shape)),
                wanted=f"{list(wanted[key].shape)} by its configuration",
                remedy="check that configuration and weights belong together",
            )
        if not tensor.is_floating_point():
            raise UserError(f"{part}.{key}", str(tensor.dtype), "floating-point numbers", "save the model in float16")


def _as_stored(tensor: torch.Tensor, name: str, updates: Sequence[WeightUpdate]) -> nn.Parameter:
    """Merge the adapters and round to float16, the dtype of a bundle's weights.

    Raises:
        UserError: a value is not finite in float16.
    """
    read = tensor
    for update in updates:
        tensor = update.applied_to(tensor)
    stored = tensor.to(torch.float16)
    if not _is_finite(stored):
        if tensor.isnan().any():
            count = int(tensor.isnan().sum())
            raise UserError(
                name,
                f"{count} value(s) that are no numbers (NaN)",
                "numbers",
                "copy or download the model again, or take one from before its training diverged",
            )
        largest = tensor.abs().max().item()
        raise UserError(name, f"a value of {largest}", f"at most {FLOAT16_MAX} (float16)", "train with weight decay")
    give_back(read)
    return nn.Parameter(stored, requires_grad=False)


def _is_finite(half: torch.Tensor) -> bool:
    """Return whether no value is infinite or NaN: these set every bit of the exponent. Much faster than isfinite."""
    return half.numel() == 0 or bool(((half.view(torch.int16) & FLOAT16_EXPONENT) != FLOAT16_EXPONENT).all())
