"""The tensors that a LoRA file holds for one layer: their names, and the difference that they make together."""

import re
from collections.abc import Collection, Mapping

import torch

from mlc_controlnet.checkpoint.weight_update import Difference, Hadamard, Kronecker, Product, Whole
from mlc_controlnet.errors import UserError

LORA_KINDS = "LoRA, LoHa, LoKr or DoRA"
ALPHA = "alpha"
DORA_SCALE = "dora_scale"  # of kohya's trainer and LyCORIS
DORA_VECTOR = "lora_magnitude_vector"  # of peft
# The name of a LoRA's factor -> its role: kohya's names, peft's, and those of older versions of diffusers.
_LOW_RANK = {
    "lora_down": "down",
    "lora_up": "up",
    "lora_mid": "mid",
    "lora_A": "down",
    "lora_B": "up",
    "lora.down": "down",
    "lora.up": "up",
    "lora_linear_layer.down": "down",
    "lora_linear_layer.up": "up",
}
_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_ROLES = {**_LOW_RANK, **{name: name for name in (*_LOHA, *_LOKR, ALPHA, DORA_SCALE, DORA_VECTOR)}}
# Old attention processors join the projection's name and the factor's: `to_q_lora.down`. peft may put the adapter's
# name after the factor's: `lora_A.default`.
_KEY = re.compile(rf"(?P<layer>.+?)[._](?P<factor>{'|'.join(map(re.escape, _ROLES))})(\.(?!weight)\w+)?(\.weight)?")

Factors = Mapping[str, torch.Tensor]


def split_key(key: str) -> tuple[str, str] | None:
    """Split a tensor's name into its layer's and its role: `up`, `down`, `mid`, `alpha`, `hada_w1_a`, ...

    Returns None for a name of another form.
    """
    match = _KEY.fullmatch(key)
    return None if match is None else (match["layer"], _ROLES[match["factor"]])


def read_difference(factors: Factors, subject: str) -> tuple[Difference, int | None]:
    """Return what the factors make together, and r, the rank that alpha is divided by.

    The rank is None for a LoKr of two whole matrices, which has no alpha.

    Args:
        factors: role -> a tensor of at least two axes.
        subject: the file and the layer, for the error.

    Raises:
        UserError: a factor is missing, or one is left.
    """
    if any(role.startswith("hada_") for role in factors):
        return _read_loha(factors, subject)
    if any(role.startswith("lokr_") for role in factors):
        return _read_lokr(factors, subject)
    _check_roles(factors, ("up", "down", *({"mid"} & factors.keys())), subject)
    product = Product(factors["up"], factors["down"], factors.get("mid"))
    return product, product.rank


def _read_loha(factors: Factors, subject: str) -> tuple[Difference, int]:
    is_tucker = bool({"hada_t1", "hada_t2"} & factors.keys())
    roles = [f"hada_w{number}_{side}" for number in (1, 2) for side in "ab"]
    _check_roles(factors, (*roles, "hada_t1", "hada_t2") if is_tucker else roles, subject)
    first, second = (_product(factors, f"hada_w{number}", factors.get(f"hada_t{number}")) for number in (1, 2))
    return Hadamard(first, second), first.rank


def _read_lokr(factors: Factors, subject: str) -> tuple[Difference, int | None]:
    roles: list[str] = []
    for name in ("lokr_w1", "lokr_w2"):
        roles += [name] if name in factors else [f"{name}_a", f"{name}_b"]
    if "lokr_t2" in factors and "lokr_w2" not in factors:
        roles.append("lokr_t2")
    _check_roles(factors, roles, subject)
    first, second = (
        Whole(factors[name]) if name in factors else _product(factors, name, core)
        for name, core in (("lokr_w1", None), ("lokr_w2", factors.get("lokr_t2")))
    )
    ranks = [factor.rank for factor in (second, first) if isinstance(factor, Product)]
    return Kronecker(first, second), ranks[0] if ranks else None


def _product(factors: Factors, name: str, core: torch.Tensor | None) -> Product:
    """With a core, LyCORIS stores the left factor as [r, rows]."""
    left, right = factors[f"{name}_a"], factors[f"{name}_b"]
    return Product(left if core is None else left.transpose(0, 1), right, core)


def _check_roles(factors: Factors, wanted: Collection[str], subject: str) -> None:
    if factors.keys() != set(wanted):
        got = ", ".join(sorted(factors)) or "no factor"
        got += " only" if factors and set(wanted) - factors.keys() else ""
        raise UserError(subject, got, " and ".join(wanted), "copy or download it again")
