"""Refuse adapters of other kinds by name: they look like ControlNets or LoRAs and are none."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.errors import UserError


@dataclass(frozen=True)
class _Adapter:
    """A kind of adapter.

    Attributes:
        names: matches whole names of tensors that no other kind of file has.
        does: what it does that a bundle cannot.
    """

    kind: str
    names: re.Pattern[str]
    does: str
    remedy: str


_ADAPTERS = (
    # TencentARC/T2I-Adapter (full, light and style adapters); diffusers' T2IAdapter and MultiAdapter
    _Adapter(
        "T2I-Adapter",
        re.compile(
            r"(adapters\.\d+\.)?(adapter\.)?body\.\d+\.(resnets\.\d+\.|body\.\d+\.)?block1\.weight|style_embedding"
        ),
        "adds features of its own to the UNet's encoder",
        "take a ControlNet for the same kind of control image",
    ),
    # kohya-ss/sd-scripts, networks/control_net_lllite.py
    _Adapter(
        "ControlNet-LLLite",
        re.compile(r"lllite_.+"),
        "changes the input of the UNet's attention layers",
        "take a ControlNet or a Control-LoRA for the same kind of control image",
    ),
    # tencent-ailab/IP-Adapter: names with dots in safetensors files, a dictionary in a dictionary in .bin files
    _Adapter(
        "IP-Adapter",
        re.compile(r"(image_proj|ip_adapter)(\..+)?"),
        "adds a second cross-attention that reads an encoded picture",
        "take a ControlNet for shapes, or a LoRA or a textual inversion for subjects and styles",
    ),
)


def check_is_not_an_adapter(path: Path, names: Iterable[str]) -> None:
    """Raise UserError if names of tensors are those of an adapter that nothing here takes."""
    listed = list(names)
    for adapter in _ADAPTERS:
        if found := next((name for name in listed if adapter.names.fullmatch(name)), None):
            wanted = (
                f"a ControlNet, a Control-LoRA or a LoRA: an adapter of this kind {adapter.does}, which no bundle does"
            )
            article = "an" if adapter.kind[0] in "AEIOU" else "a"
            raise UserError(str(path), f"{article} {adapter.kind} ({found})", wanted, adapter.remedy)
