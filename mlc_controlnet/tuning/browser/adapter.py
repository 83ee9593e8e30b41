"""What a tab says of its WebGPU adapter, and the family that its records belong to."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from mlc_controlnet.bundle.json_record import from_json

# The names of architectures that differ from those of our families, as browsers write them.
FAMILIES = {
    "rdna-1": "rdna1",
    "rdna-2": "rdna2",
    "rdna-3": "rdna3",
    "rdna-4": "rdna4",
    "lovelace": "ada",
    "ada-lovelace": "ada",
}
KNOWN_BY_ARCHITECTURE = ("amd", "nvidia")  # makers whose architectures nobody else has
FLOAT16, CLOCK = "shader-f16", "timestamp-query"
TOLD = (FLOAT16, CLOCK, "subgroups")  # features that a record names
LONGEST = 100  # characters of a name


@dataclass(frozen=True)
class Adapter:
    """A WebGPU adapter, as far as its browser reveals it: `GPUAdapterInfo`, and `features` of `GPUAdapter`."""

    vendor: str
    architecture: str
    device: str
    description: str
    is_software: bool
    features: tuple[str, ...]

    @property
    def has_float16(self) -> bool:
        """Whether shaders may compute in float16."""
        return FLOAT16 in self.features

    @property
    def name(self) -> str:
        """Name it for readers and records: "nvidia lovelace (NVIDIA GeForce RTX 4090), shader-f16, timestamp-query"."""
        words = " ".join(dict.fromkeys(filter(None, (self.vendor, self.architecture, self.device))))
        described = f"{words} ({self.description})" if self.description else words
        return ", ".join([described, *(feature for feature in TOLD if feature in self.features)])

    @property
    def family(self) -> str:
        """Return the folder of its records; empty where the browser does not tell what the GPU is."""
        vendor, architecture = _folder(self.vendor), _folder(self.architecture)
        if not vendor or not architecture:
            return ""
        if architecture in FAMILIES:
            return FAMILIES[architecture]
        return architecture if vendor in KNOWN_BY_ARCHITECTURE else f"{vendor}-{architecture}"


def read_adapter(value: Any) -> Adapter:
    """Read what a tab sent. Raises UserError if it is something else."""
    adapter: Adapter = from_json(Adapter, value, "adapter")
    return dataclasses.replace(
        adapter,
        vendor=_printable(adapter.vendor),
        architecture=_printable(adapter.architecture),
        device=_printable(adapter.device),
        description=_printable(adapter.description),
    )


def _printable(text: str) -> str:
    """Leave out what would move a terminal's cursor."""
    return "".join(letter for letter in text if letter.isprintable())[:LONGEST].strip()


def _folder(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
