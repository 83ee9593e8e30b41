"""The layers that a LoRA can change, and their names in files: kohya's, LyCORIS', peft's, diffusers' old and new."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from mlc_controlnet.checkpoint.ldm_names import original_unet_module
from mlc_controlnet.components import TEXT_ENCODER_2

# The names that older versions of diffusers gave the projections of CLIP's attention.
_OLD_PROJECTIONS = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution.

    Attributes:
        name: of the module in its part.
        original: its name in the original code, the same as `name` in the text encoders.
        shape: of its weight.
    """

    part: str
    name: str
    original: str
    shape: tuple[int, ...]

    @property
    def tensor_name(self) -> str:
        """The weight's name in the checkpoint: `unet.<...>.weight`."""
        return f"{self.part}.{self.name}.weight"

    @property
    def aliases(self) -> tuple[str, ...]:
        """List the names of this layer in LoRA files, without the ending that names the factor.

        The names without a part's prefix are those of files that change only the UNet.
        """
        return self._of_unet() if self.part == "unet" else self._of_text_encoder()

    def _of_text_encoder(self) -> tuple[str, ...]:
        names = [self.name]
        attention, _, projection = self.name.rpartition(".")
        if projection in _OLD_PROJECTIONS:
            names.append(f"{attention}.{_OLD_PROJECTIONS[projection]}")
        name = self.name.replace(".", "_")
        if self.part == TEXT_ENCODER_2:
            prefixes = [f"{self.part}.text_model.", f"{self.part}."]
            if self.name == "text_projection":
                return f"lora_te2_{name}", f"{self.part}.{self.name}"
            return (f"lora_te2_text_model_{name}", *(prefix + name for name in names for prefix in prefixes))
        prefixes = ["text_encoder.text_model.", "text_encoder.", "base_model.model.text_model.", "base_model.model."]
        flat = [f"lora_{te}_text_model_{name}" for te in ("te", "te1")]  # te1: where there are two text encoders
        return (*flat, *(prefix + name for name in names for prefix in prefixes))

    def _of_unet(self) -> tuple[str, ...]:
        names = [self.name]
        attention, _, projection = self.name.removesuffix(".0").rpartition(".")
        if attention.endswith(("attn1", "attn2")):
            names.append(f"{attention}.processor.{projection}")
        flat, flat_original = (name.replace(".", "_") for name in (self.name, self.original))
        return (
            *dict.fromkeys((f"lora_unet_{flat}", f"lora_unet_{flat_original}", f"lycoris_{flat}")),
            f"diffusion_model.{self.original}",
            *(prefix + name for name in names for prefix in ("unet.", "base_model.model.", "")),
        )


def layers_of(modules: Mapping[str, nn.Module]) -> Iterator[Layer]:
    """List the layers of parts among `LORA_PARTS`. The modules may be on the meta device."""
    for part, module in modules.items():
        names = [name for name, _ in module.named_modules()]
        with_attention = {name.removesuffix(".attentions") for name in names if name.endswith(".attentions")}
        for name, layer in module.named_modules():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            original = name
            if part == "unet":
                block = ".".join(name.split(".")[:2])
                original = original_unet_module(name, module.config.layers_per_block, block in with_attention)
            yield Layer(part, name, original, tuple(layer.weight.shape))
