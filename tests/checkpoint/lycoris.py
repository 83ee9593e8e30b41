"""Random factors of every kind of adapter, under the names of their files, and the difference that they make, summed
index by index in float64 as the papers write it.
"""

from collections.abc import Callable
from itertools import product

import torch

Tensors = dict[str, torch.Tensor]
Made = tuple[Tensors, torch.Tensor]  # role -> factor, and the difference without alpha, float64, of the weight's shape
RANK = 3


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def rank_one_sum(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The sum over r of the outer products of column r and row r."""
    return sum(torch.outer(left[:, r].double(), right[r].double()) for r in range(right.shape[0]))


def tucker_sum(core: torch.Tensor, outputs: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """The sum over i, j of core[i, j, y, x] outputs[i, o] inputs[j, c], as [o, c, y, x]."""
    core, outputs, inputs = core.double(), outputs.double(), inputs.double()
    total = torch.zeros(outputs.shape[1], inputs.shape[1], *core.shape[2:], dtype=torch.float64)
    for i, j in product(range(core.shape[0]), range(core.shape[1])):
        total += torch.outer(outputs[i], inputs[j])[:, :, None, None] * core[i, j]
    return total


def lora(shape: torch.Size) -> Made:
    kernel = shape[2:]
    up, down = randn(shape[0], RANK, *(1 for _ in kernel)), randn(RANK, *shape[1:])
    return {"lora_up.weight": up, "lora_down.weight": down}, rank_one_sum(up.flatten(1), down.flatten(1)).reshape(shape)


def locon_tucker(shape: torch.Size) -> Made:
    up, down, mid = randn(shape[0], RANK, 1, 1), randn(RANK, shape[1], 1, 1), randn(RANK, RANK, *shape[2:])
    difference = tucker_sum(mid, up.flatten(1).T, down.flatten(1))
    return {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": mid}, difference


def loha(shape: torch.Size) -> Made:
    columns = shape[1:].numel()
    factors = {f"hada_w{n}_{side}": randn(*of) for n in (1, 2) for side, of in _sides(shape[0], columns)}
    first, second = (rank_one_sum(factors[f"hada_w{n}_a"], factors[f"hada_w{n}_b"]) for n in (1, 2))
    return factors, (first * second).reshape(shape)


def loha_tucker(shape: torch.Size) -> Made:
    factors: Tensors = {}
    for n in (1, 2):
        factors |= {f"hada_w{n}_a": randn(RANK, shape[0]), f"hada_w{n}_b": randn(RANK, shape[1])}
        factors[f"hada_t{n}"] = randn(RANK, RANK, *shape[2:])
    first, second = (
        tucker_sum(*(factors[name] for name in (f"hada_t{n}", f"hada_w{n}_a", f"hada_w{n}_b"))) for n in (1, 2)
    )
    return factors, first * second


def lokr_whole(shape: torch.Size) -> Made:
    (a, b), (c, d) = _split(shape[0]), _split(shape[1])
    w1, w2 = randn(a, c), randn(b, d, *shape[2:])
    return {"lokr_w1": w1, "lokr_w2": w2}, blocks(w1, w2, shape)


def lokr_half(shape: torch.Size) -> Made:
    """LyCORIS' default: w1 whole, w2 a product, for a convolution with its kernel flattened."""
    (a, b), (c, d) = _split(shape[0]), _split(shape[1])
    w1, left, right = randn(a, c), randn(b, RANK), randn(RANK, d * shape[2:].numel())
    w2 = rank_one_sum(left, right).reshape(b, d, *shape[2:])
    return {"lokr_w1": w1, "lokr_w2_a": left, "lokr_w2_b": right}, blocks(w1, w2, shape)


def lokr_both(shape: torch.Size) -> Made:
    """`decompose_both`."""
    (a, _), (c, _) = _split(shape[0]), _split(shape[1])
    half, _ = lokr_half(shape)
    left, right = randn(a, RANK), randn(RANK, c)
    w2 = rank_one_sum(half["lokr_w2_a"], half["lokr_w2_b"])
    w2 = w2.reshape(w2.shape[0], -1, *shape[2:])
    factors = {"lokr_w1_a": left, "lokr_w1_b": right, **{key: half[key] for key in ("lokr_w2_a", "lokr_w2_b")}}
    return factors, blocks(rank_one_sum(left, right), w2, shape)


def lokr_tucker(shape: torch.Size) -> Made:
    (a, b), (c, d) = _split(shape[0]), _split(shape[1])
    w1, left, right, core = randn(a, c), randn(RANK, b), randn(RANK, d), randn(RANK, RANK, *shape[2:])
    factors = {"lokr_w1": w1, "lokr_w2_a": left, "lokr_w2_b": right, "lokr_t2": core}
    return factors, blocks(w1, tucker_sum(core, left, right), shape)


def blocks(w1: torch.Tensor, w2: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Block (i, j) of the Kronecker product is w1[i, j] * w2."""
    w1, w2 = w1.double(), w2.double()
    total = torch.empty(shape, dtype=torch.float64)
    b, d = w2.shape[:2]
    for i, j in product(range(w1.shape[0]), range(w1.shape[1])):
        total[i * b : (i + 1) * b, j * d : (j + 1) * d] = w1[i, j] * w2
    return total


def dora(weight: torch.Tensor, difference: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
    """Normalize every slice of W + ΔW by itself. `magnitude` is [out, 1, ...] or [1, in, ...]."""
    changed = (weight.double() + difference).clone()
    axis = 0 if magnitude.shape[0] != 1 else 1
    for number, wanted in enumerate(magnitude.flatten().double()):
        part = changed.select(axis, number)
        part *= wanted / part.square().sum().sqrt()
    return changed


EVERYWHERE: dict[str, Callable[[torch.Size], Made]] = {
    "lora": lora,
    "loha": loha,
    "lokr_whole": lokr_whole,
    "lokr_half": lokr_half,
    "lokr_both": lokr_both,
}
CONVOLUTIONS_ALONE: dict[str, Callable[[torch.Size], Made]] = {
    "locon_tucker": locon_tucker,
    "loha_tucker": loha_tucker,
    "lokr_tucker": lokr_tucker,
}


def _sides(rows: int, columns: int) -> tuple[tuple[str, tuple[int, int]], ...]:
    return ("a", (rows, RANK)), ("b", (RANK, columns))


def _split(size: int) -> tuple[int, int]:
    """Two different factors, the smaller one first: swapped ones show."""
    return 4, size // 4
