"""What hand-written kernels compute, in torch and float64, on inputs that reveal a wrong index."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.group_norm_gpu import choose_slices
from mlc_controlnet.kernels.normalization import GroupNorm, LayerNorm


@dataclass(frozen=True)
class Softmax:
    """softmax(scale * x) over the last axis."""

    shape: tuple[int, int, int]
    scale: float


@dataclass(frozen=True)
class Example:
    """Arguments of a kernel but its output, in order, and what it should write."""

    arguments: tuple[np.ndarray, ...]
    want: np.ndarray


def example_of(computes: str) -> Example:
    """Make an example for a GPU's kernel that is marked with `computes`."""
    found = re.fullmatch(r"(?:(\w+) of )?(\w+\(.*\))", computes)
    assert found is not None, computes
    kinds = {kind.__name__: kind for kind in (Attention, GroupNorm, LayerNorm, Softmax)}
    wanted = eval(found[2], {"__builtins__": {}}, kinds)
    if isinstance(wanted, Attention):
        inputs = attention_inputs(wanted)
        return Example(tuple(lay_out(wanted, inputs).values()), attend_in_torch(wanted, inputs))
    if isinstance(wanted, LayerNorm):
        inputs = layer_norm_inputs(wanted)
        return Example(tuple(inputs.values()), layer_norm_in_torch(wanted, inputs))
    if isinstance(wanted, Softmax):
        scores = softmax_scores(wanted.shape)
        return Example((scores,), softmax_in_torch(scores, wanted.scale))
    return _group_norm_example(wanted, found[1])


def _group_norm_example(norm: GroupNorm, part: str | None) -> Example:
    inputs = group_norm_inputs(norm)
    x, gamma, beta = inputs.values()
    partial = statistics_in_torch(norm, inputs)
    if part == "statistics":
        return Example((x,), partial)
    if part == "coefficients":
        return Example((partial.astype("float32"), gamma), coefficients_in_torch(norm, inputs))
    want = normalize_in_torch(norm, inputs)
    return Example((x, partial.astype("float32"), gamma, beta) if part == "normalize" else (x, gamma, beta), want)


def attention_inputs(attention: Attention, spread: float | None = None) -> dict[str, np.ndarray]:
    """Scores have a standard deviation of `spread` squared: by default 4, in float16 1."""
    random = np.random.default_rng(0)
    spread = spread or (2 if attention.dtype == "float32" else 1)
    inputs = {
        "q": spread * random.standard_normal(attention.query_shape),
        "k": spread * random.standard_normal(attention.key_shape),
        "v": random.standard_normal(attention.key_shape),
    }
    if attention.bias_shape is not None:
        hidden = random.random(attention.bias_shape) < 0.5
        hidden[..., 0] = False
        inputs["bias"] = np.where(hidden, -1e4, random.standard_normal(attention.bias_shape))
    return {name: value.astype(attention.dtype) for name, value in inputs.items()}


def lay_out(attention: Attention, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The kernel's arguments, of whose rows others take what is NaN here."""
    if attention.layout == "together":
        return {"qkv": np.concatenate([inputs[name] for name in "qkv"], axis=2)}
    if attention.layout == "shared":
        width = attention.width
        rows = np.full((attention.batch, attention.keys, 2 * width + 12), np.nan, attention.dtype)
        rows[:, :, 8 : 8 + width], rows[:, :, 8 + width : -4] = inputs["v"], inputs["k"]
        place = attention.place_of(rows.shape[2], key_column=8 + width, value_column=8)
        return {"q": inputs["q"], "shared": rows.reshape(-1), "place": np.array(place, np.int32)}
    return inputs


def attend_in_torch(attention: Attention, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """In float64: both float32 and float16 kernels are measured against the truth."""
    heads = (attention.heads, attention.head_size)
    q, k, v = (torch.tensor(inputs[name]).double().unflatten(2, heads).transpose(1, 2) for name in "qkv")
    mask = torch.zeros(1, 1, attention.queries, attention.keys, dtype=torch.float64)
    if attention.bias_shape is not None:
        mask = mask + torch.tensor(inputs["bias"]).double()
    if attention.causal is not None:
        ahead = 0 if attention.causal == "TopLeft" else attention.keys - attention.queries
        mask = mask.masked_fill(torch.ones(attention.queries, attention.keys).triu(1 + ahead).bool(), -torch.inf)
    output = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=attention.scale)
    return output.transpose(1, 2).flatten(2).numpy()


def group_norm_inputs(norm: GroupNorm, mean: float = 3.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    inputs = {
        "x": random.standard_normal(norm.shape) + mean,
        "gamma": random.standard_normal(norm.channels),
        "beta": random.standard_normal(norm.channels),
    }
    return {name: value.astype(norm.dtype) for name, value in inputs.items()}


def normalize_in_torch(norm: GroupNorm, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """In float64."""
    x, gamma, beta = (torch.tensor(inputs[name]).double() for name in ("x", "gamma", "beta"))
    y = torch.nn.functional.group_norm(x, norm.groups, gamma, beta, norm.epsilon)
    return (torch.nn.functional.silu(y) if norm.silu else y).numpy()


def statistics_in_torch(norm: GroupNorm, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Mean and sum of squared deviations of every slice of a group, as the GPU slices it."""
    slices = choose_slices(norm)
    groups = torch.tensor(inputs["x"]).double().reshape(slices.groups, norm.group_size)
    parts = groups.split(slices.size, dim=1)
    means = [part.mean(dim=1) for part in parts]
    deviations = [(part - mean[:, None]).square().sum(dim=1) for part, mean in zip(parts, means, strict=True)]
    return torch.stack([torch.stack(means, dim=1), torch.stack(deviations, dim=1)], dim=2).numpy()


def coefficients_in_torch(norm: GroupNorm, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Mean and scale of every channel."""
    groups = torch.tensor(inputs["x"]).double().reshape(norm.batch, norm.groups, norm.group_size)
    mean, variance = groups.mean(dim=2), groups.var(dim=2, correction=0)
    scale = (variance + norm.epsilon).rsqrt().repeat_interleave(norm.group_channels, dim=1)
    scale = scale * torch.tensor(inputs["gamma"]).double()
    return torch.stack([mean.repeat_interleave(norm.group_channels, dim=1), scale], dim=2).numpy()


def layer_norm_inputs(norm: LayerNorm) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    inputs = {
        "x": random.standard_normal(norm.shape) + 3,
        "gamma": random.standard_normal(norm.width),
        "beta": random.standard_normal(norm.width),
    }
    return {name: value.astype(norm.dtype) for name, value in inputs.items()}


def layer_norm_in_torch(norm: LayerNorm, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """In float64."""
    x, gamma, beta = (torch.tensor(array).double() for array in inputs.values())
    return torch.nn.functional.layer_norm(x, (norm.width,), gamma, beta, norm.epsilon).numpy()


def softmax_scores(shape: tuple[int, int, int]) -> np.ndarray:
    """With one so large that its row is one-hot, and rows whose exponentials would overflow."""
    values = 4 * np.random.default_rng(0).standard_normal(shape) + 300 * np.arange(shape[1])[:, None]
    values[0, 1, 2] += 1e4
    return values.astype("float32")


def softmax_in_torch(scores: np.ndarray, scale: float) -> np.ndarray:
    """In float64."""
    return torch.softmax(scale * torch.tensor(scores).double(), dim=-1).numpy()
