"""A union ControlNet with one control type is a ControlNet as any other.

ControlNet++'s union and promax (github.com/xinsir6/ControlNetPlus; diffusers' ControlNetUnionModel) are one network for
6 or 8 kinds of control image. The control type enters it in two places:

    emb = time_embedding(t) + control_add_embedding(sinusoids(1 for the type, 0 for each other))
    control embedding = c + spatial_ch_projs(transformer(mean(c) + task_embedding[type])),
        where c = controlnet_cond_embedding(control image)

A build chooses the type, `--controlnet PATH:TYPE`, and both become constants: the first a part of a bias, the second a
vector in the component that reads the control image once per picture. The component that runs at every step is then
the one of a plain ControlNet for Stable Diffusion XL, engines and pages know nothing of types, and a type has its own
name, annotator and scale. A bundle for several types has a ControlNet for each, and these share all weights but the two
vectors. (As an input, the type would be chosen when a picture is drawn, among all types of the model: two components
would read it, in every engine, for types that nobody of a bundle's visitors may want.)

The transformer has no attention to speak of. Its `nn.MultiheadAttention` takes the first axis for the sequence, and
diffusers, as the original code, puts the batch there: each token of a picture attends to the same token of the batch's
other pictures. In a batch of one picture, or of the two halves of classifier-free guidance, whose control images are
equal, every token gets its own value back. So the token of the noisy latents, which stands beside that of the control
image, changes nothing; and neither do the weights of queries and keys, which are left out.

Several control images of one picture are several ControlNets, whose residuals are added, as in diffusers'
MultiControlNetUnionModel. What ControlNetUnionModel makes of several images in one call is another sum.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers.models.controlnets.controlnet_union import ResidualAttentionMlp
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn
from torch.nn import functional

from mlc_controlnet.checkpoint.controlnet_names import kind_of_word
from mlc_controlnet.checkpoint.options import is_union
from mlc_controlnet.checkpoint.source import PartSource
from mlc_controlnet.errors import UserError

# The kinds of control image of each control type, by its number. A model of six has the first six; promax has all.
CONTROL_TYPES = (
    ("openpose",),
    ("depth",),
    ("scribble", "softedge"),
    ("canny", "lineart", "lineart_anime", "mlsd"),
    ("normalbae",),
    ("seg",),
    ("tile",),
    ("inpaint",),
)
TASKS = "task_embedding"  # [control types, C]; no other ControlNet has such a tensor
FUSER = "control_fuser"
_LAYERS, _PROJECTION = "transformer_layes", "spatial_ch_projs"  # spelled as in diffusers and in the files
_TIME_BIAS = "time_embedding.linear_2.bias"
_CHANNELS = "num_trans_channel"
_TYPE_EMBEDDING = tuple(
    f"control_add_embedding.{key}" for key in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")
)
# All else is the same for each control type of a file.
OF_TYPE = frozenset({f"{FUSER}.{TASKS}", _TIME_BIAS})


class ControlFuser(nn.Module):
    """What a union ControlNet of one control type makes of its control embedding.

    Args:
        channels: C of the control embedding.
        layers: of the transformer.
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        self.task_embedding = nn.Parameter(torch.zeros(1, channels))
        self.transformer_layes = nn.ModuleList(_Layer(channels) for _ in range(layers))
        self.spatial_ch_projs = nn.Linear(channels, channels)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        token = (embedding.mean((2, 3)) + self.task_embedding).unsqueeze(1)  # [B, 1, C]
        for layer in self.transformer_layes:
            token = layer(token)
        shift = self.spatial_ch_projs(token)
        return embedding + shift.transpose(1, 2).unsqueeze(-1)  # [B, C, 1, 1]


class _Attention(nn.Module):
    """Attention of a token to itself alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.v_proj(x))


class _Layer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = _Attention(channels)
        self.ln_1 = nn.LayerNorm(channels)
        self.mlp = ResidualAttentionMlp(channels)
        self.ln_2 = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


def of_control_type(source: PartSource, control_type: str) -> PartSource:
    """Return a ControlNet for one kind of control image: `source` itself, or a union ControlNet with a type.

    Args:
        control_type: in the words of `controlnet_names`; "" for a ControlNet of one kind.

    Raises:
        UserError: a union ControlNet lacks the type, or none is given; or another ControlNet has no types.
    """
    subject = f"controlnet {source.where}"
    if not is_union(source.config):
        if control_type:
            got, wanted = f"control type {control_type!r}", "none: it was trained for one kind of control image"
            raise UserError(subject, got, wanted, f"leave out :{control_type}")
        return source
    count, width = source.config["num_control_type"], source.config.get("addition_time_embed_dim")
    if not (isinstance(count, int) and isinstance(width, int)):
        got = f"a union ControlNet with num_control_type {count} and addition_time_embed_dim {width}"
        raise UserError(subject, got, "numbers, as one for Stable Diffusion XL has", "save or download it again")
    known = ", ".join(kind for kinds in CONTROL_TYPES[:count] for kind in kinds)
    if not control_type:
        got, wanted = "a union ControlNet without a control type", f"one of {known}"
        remedy = f"choose it when you build: --controlnet {source.where}:canny, once for each type"
        raise UserError(subject, got, wanted, remedy)
    kind = kind_of_word(control_type.lower())
    number = next((i for i, kinds in enumerate(CONTROL_TYPES) if kind in kinds), None)
    if number is None or number >= count:
        more = "" if number is None else ", which a promax model has and this one lacks"
        raise UserError(subject, f"control type {control_type!r}{more}", f"one of {known}", "choose another PATH:TYPE")
    read = partial(_read_type, source, number)
    return dataclasses.replace(source, read=read, control_type=kind)


def union_options(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the options that only a union ControlNet has, as the tensors of its file show them."""
    count, channels = tensors[TASKS].shape if tensors[TASKS].ndim == 2 else (0, 0)
    first = tensors.get(_TYPE_EMBEDDING[0])
    numbers = {key.split(".")[1] for key in tensors if key.startswith(f"{_LAYERS}.")}
    return {
        "num_control_type": count,
        _CHANNELS: channels,
        "num_proj_channel": channels,
        "num_trans_layer": len(numbers),
        "addition_time_embed_dim": None if first is None or not count else first.shape[-1] // count,
    }


def share_tensors(parts: Mapping[str, nn.Module], files: Mapping[str, str]) -> None:
    """Let parts of one file have the same tensors, but for those of their control types.

    Args:
        parts: loaded ControlNets, each with its control type.
        files: part -> its file or folder.
    """
    first: dict[str, nn.Module] = {}
    for part, module in parts.items():
        twin = first.setdefault(files[part], module)
        for key, tensor in dict(twin.named_parameters()).items() if twin is not module else ():
            if key not in OF_TYPE:
                owner, _, leaf = key.rpartition(".")
                setattr(module.get_submodule(owner), leaf, tensor)


def _read_type(source: PartSource, number: int) -> dict[str, torch.Tensor]:
    """Return the weights of a ControlNet with a `ControlFuser`, from those of a union ControlNet."""
    config, tensors = source.config, source.read()
    count, width, channels = (config[option] for option in ("num_control_type", "addition_time_embed_dim", _CHANNELS))
    time = 4 * config["block_out_channels"][0]
    of_types = {TASKS: (count, channels), **dict(zip(_TYPE_EMBEDDING, _shapes(count * width, time), strict=True))}
    _check(tensors, {**of_types, _TIME_BIAS: (time,)}, source.where)
    chosen = functional.one_hot(torch.tensor(number), count).float()
    sinusoids = get_timestep_embedding(chosen, width, config["flip_sin_to_cos"], config["freq_shift"]).flatten()
    embedded = _embed(sinusoids, [tensors[key].float() for key in _TYPE_EMBEDDING])
    kept = {key: tensor for key, tensor in tensors.items() if key not in of_types}
    kept[_TIME_BIAS] = tensors[_TIME_BIAS].float() + embedded
    named = {_in_fuser(key): _values(key, tensor) for key, tensor in kept.items()}
    return {**named, f"{FUSER}.{TASKS}": tensors[TASKS][number : number + 1]}


def _shapes(inputs: int, outputs: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the weights in _TYPE_EMBEDDING."""
    return (outputs, inputs), (outputs,), (outputs, outputs), (outputs,)


def _embed(sinusoids: torch.Tensor, weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """[6 or 8 x width] -> [time width], as diffusers' TimestepEmbedding."""
    hidden, hidden_bias, out, out_bias = weights
    return functional.linear(functional.silu(functional.linear(sinusoids, hidden, hidden_bias)), out, out_bias)


def _in_fuser(key: str) -> str:
    renamed = key.replace(".attn.in_proj_", ".attn.v_proj.")
    return f"{FUSER}.{renamed}" if key.startswith((f"{_LAYERS}.", f"{_PROJECTION}.")) else key


def _values(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the last third of a joined projection to queries, keys and values; any other tensor as it is."""
    return tensor[2 * (len(tensor) // 3) :] if ".attn.in_proj_" in key else tensor


def _check(tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    for key, shape in shapes.items():
        got = list(tensors[key].shape) if key in tensors else "no such tensor"
        if got != list(shape):
            remedy = "check that configuration and weights belong together"
            raise UserError(f"controlnet {where}: {key}", str(got), f"{list(shape)} by its configuration", remedy)
