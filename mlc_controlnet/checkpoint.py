"""A checkpoint on disk -> torch modules, with every tensor accounted for.

A checkpoint is a folder in diffusers' layout: `model_index.json` and a subfolder per part, each with its `config.json`
and its weights as safetensors. Weights are read once, rounded to float16 as a bundle will store them, and computed with
in float32.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from mlc_controlnet.components import ComponentSpec, ModelShape, component_specs
from mlc_controlnet.config import Defaults
from mlc_controlnet.errors import UserError

BUNDLED_MODELS = Path(__file__).parent / "models"
FLOAT16_MAX = 65504.0
_CLASSES = {
    "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel,
    "vae": AutoencoderKL,
}
_WEIGHT_FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "controlnet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. A tensor's name is its part's name, a dot and its key there: `unet.conv_in.weight`."""

    name: str
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    controlnet: ControlNetModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    tokenizer_file: Path
    tokenizer_config: dict[str, Any]
    shape: ModelShape
    defaults: Defaults

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {
            "text_encoder": self.text_encoder,
            "controlnet": self.controlnet,
            "unet": self.unet,
            "vae": self.vae,
        }

    @property
    def specs(self) -> dict[str, ComponentSpec]:
        return component_specs(self.shape)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor by name, float32."""
        return {
            f"{part}.{key}": tensor for part, module in self.parts.items() for key, tensor in module.named_parameters()
        }

    def names_by_identity(self) -> dict[int, str]:
        """`id()` of every tensor -> its name, for modules that are put together from pieces of the parts."""
        return {id(tensor): name for name, tensor in self.tensors().items()}

    def check_every_tensor_is_read_once(self, params: Mapping[str, Sequence[str]]) -> None:
        """Compare what the components read (component -> names) with what the checkpoint holds.

        Raises:
            UserError: names the tensors that no component reads, or that more than one does.
        """
        reads = Counter(name for names in params.values() for name in names)
        unread = [name for name in self.tensors() if name not in reads]
        repeated = [name for name, count in reads.items() if count > 1]
        if unread or repeated:
            raise UserError(
                subject=f"checkpoint {self.name}",
                got=f"{_some(unread)} read by no component, {_some(repeated)} read more than once",
                wanted="every tensor read exactly once",
                remedy="check that the checkpoint's config.json files belong to its weights",
            )


def find_model(model: str) -> Path:
    """The folder of a bundled model's name or of a path.

    Raises:
        UserError: there is no such model.
    """
    for folder in (BUNDLED_MODELS / model, Path(model)):
        if (folder / "model_index.json").is_file():
            return folder
    bundled = sorted(p.parent.name for p in BUNDLED_MODELS.glob("*/model_index.json"))
    raise UserError(
        subject="model",
        got=f"{model!r}, which has no model_index.json" if Path(model).is_dir() else f"{model!r}, which does not exist",
        wanted=f"a bundled model ({', '.join(bundled)}) or a folder in diffusers' layout",
        remedy="pass --model with one of these",
    )


def load_checkpoint(folder: Path, height: int | None = None, width: int | None = None) -> Checkpoint:
    """Read the model below `folder`, for pictures of `height` x `width` pixels (default: what it was trained on).

    Raises:
        UserError: a part is missing, a file is damaged, or a tensor's name or shape is not what its config wants.
    """
    parts = {part: _load_part(folder, part) for part in ("text_encoder", "unet", "controlnet", "vae")}
    unet, vae = parts["unet"], parts["vae"]
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    tokenizer_file = folder / "tokenizer" / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise UserError("tokenizer", f"no {tokenizer_file}", "tokenizer/tokenizer.json", "save the model again")
    shape = ModelShape(
        height=unet.config.sample_size * factor if height is None else height,
        width=unet.config.sample_size * factor if width is None else width,
        tokens=parts["text_encoder"].config.max_position_embeddings,
        text_width=unet.config.cross_attention_dim,
        latent_channels=vae.config.latent_channels,
        unet_channels=tuple(unet.config.block_out_channels),
        layers_per_block=unet.config.layers_per_block,
        vae_scale_factor=factor,
    )
    multiple = factor * 2 ** (len(shape.unet_channels) - 1)
    for axis, pixels in (("height", shape.height), ("width", shape.width)):
        if pixels <= 0 or pixels % multiple:
            raise UserError(axis, f"{pixels} pixels", f"a positive multiple of {multiple}", f"pass --{axis}")
    return Checkpoint(
        name=folder.name,
        text_encoder=parts["text_encoder"],
        unet=unet,
        controlnet=parts["controlnet"],
        vae=vae,
        scheduler_config=_read_json(folder / "scheduler" / "scheduler_config.json"),
        tokenizer_file=tokenizer_file,
        tokenizer_config=_read_json(folder / "tokenizer" / "tokenizer_config.json"),
        shape=shape,
        defaults=_load_defaults(folder),
    )


def _load_defaults(folder: Path) -> Defaults:
    """What the model recommends in its `generation_config.json`; Stable Diffusion's usual values where it has none."""
    file = folder / "generation_config.json"
    recommended = _read_json(file) if file.is_file() else {}
    return Defaults(
        steps=int(recommended.get("num_inference_steps", 20)),
        guidance_scale=float(recommended.get("guidance_scale", 7.5)),
        conditioning_scale=float(recommended.get("controlnet_conditioning_scale", 1.0)),
    )


def _load_part(folder: Path, part: str) -> nn.Module:
    config = _read_json(folder / part / "config.json")
    with torch.device("meta"):
        if part == "text_encoder":
            module: nn.Module = CLIPTextModel(CLIPTextConfig(**config))
        else:
            module = _CLASSES[part].from_config(config)
    weights = read_safetensors(folder / part / _WEIGHT_FILES[part])
    if part == "text_encoder":
        # Files written by transformers before version 5 carry the name of a module that is gone.
        weights = {key.removeprefix("text_model."): tensor for key, tensor in weights.items()}
    _check_against(module, weights, part)
    state = {key: _as_stored(tensor, f"{part}.{key}") for key, tensor in weights.items()}
    module.load_state_dict(state, strict=False, assign=True)
    for name, buffer in module.named_buffers():
        # Not in the file and not a weight: position ids and the like, which a meta module has no values for.
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_buffer(leaf, torch.zeros_like(buffer, device="cpu"), persistent=False)
    return module.eval().requires_grad_(False)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Parse a safetensors file.

    Raises:
        UserError: it is missing, truncated, or its header is not one.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file", "weights as safetensors", "check that the model was saved whole")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - a file, not a dict
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(
            str(path), f"a damaged file ({error})", "whole safetensors", "copy or download it again"
        ) from error


def _check_against(module: nn.Module, weights: Mapping[str, torch.Tensor], part: str) -> None:
    wanted = dict(module.named_parameters())
    missing, unknown = [k for k in wanted if k not in weights], [k for k in weights if k not in wanted]
    if missing or unknown:
        raise UserError(
            subject=part,
            got=f"a file that lacks {_some(missing)} and has {_some(unknown)} too many",
            wanted=f"the {len(wanted)} tensors of its config.json",
            remedy="check that config.json and weights belong together",
        )
    for key, tensor in weights.items():
        if tensor.shape != wanted[key].shape:
            raise UserError(
                subject=f"{part}.{key}",
                got=str(list(tensor.shape)),
                wanted=f"{list(wanted[key].shape)} by its config.json",
                remedy="check that config.json and weights belong together",
            )


def _as_stored(tensor: torch.Tensor, name: str) -> nn.Parameter:
    """Round to float16, as the bundle stores it, and widen to float32, as it is computed with."""
    largest = tensor.abs().max().item() if tensor.numel() else 0.0
    if not largest <= FLOAT16_MAX:
        raise UserError(name, f"a value of {largest}", f"at most {FLOAT16_MAX} (float16)", "train with weight decay")
    return nn.Parameter(tensor.to(torch.float16).to(torch.float32), requires_grad=False)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(str(path), "no such file", "a model in diffusers' layout", "save the model again") from None
    except ValueError as error:
        raise UserError(str(path), f"no JSON ({error})", "a JSON object", "save the model again") from error
    if not isinstance(value, dict):
        raise UserError(str(path), type(value).__name__, "a JSON object", "save the model again")
    return value


def _some(names: Sequence[str]) -> str:
    """The first few of a list of names, and how many there are."""
    if not names:
        return "none"
    return f"{len(names)} tensor(s) ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
