"""manifest.json: the contents of a bundle. It is written last, so a folder without it is not a bundle.

Twin: web/src/engine/manifest.ts.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.json_record import REMEDY, from_json, to_json
from mlc_controlnet.bundle.manifest_faults import faults_of
from mlc_controlnet.bundle.params import ParamsSpec
from mlc_controlnet.bundle.variant import Variant
from mlc_controlnet.components import (
    DRAWING,
    INPAINTING_CHANNELS,
    TEXT_ENCODER_2,
    TEXT_ENCODERS,
    UNET,
    VAE_ENCODER,
    TensorSpec,
    is_matrix,
)
from mlc_controlnet.config import Defaults
from mlc_controlnet.errors import UserError

FORMAT_VERSION = 3


@dataclass(frozen=True)
class ModelSummary:
    """The properties of the model: its name, picture size and latents."""

    name: str
    height: int  # H, pixels
    width: int  # W, pixels
    latent_channels: int
    vae_scale_factor: int  # pixels per side of a latent cell
    prediction_type: str  # diffusers' word: epsilon, v_prediction or sample
    scaling_factor: float  # latents are the VAE encoder's mean times this
    zeros_for_empty_prompt: bool = False  # in place of an encoded negative prompt that is empty


@dataclass(frozen=True)
class FunctionKernels:
    """The GPU's kernels that a function of a library launches."""

    function: str
    kernels: tuple[str, ...]  # in the order of their first launch


@dataclass(frozen=True)
class Library:
    """One compiled library and the features and limits that a device needs to run it."""

    file: str
    device: str  # webgpu, wasm (a browser's processor), llvm, cuda, ...
    dtype: str  # the compute dtype: float32 or float16
    required_features: tuple[str, ...]  # GPUFeatureName
    required_limits: Mapping[str, int]  # GPUSupportedLimits names to values
    activation_bytes: Mapping[str, int]  # of planned activations, by function
    launches: Mapping[str, int]  # kernel launches per call, by function
    largest_binding_bytes: int
    instruction_set: str = ""  # of the processors that run it: x86-64-v3, x86-64-v4, aarch64, wasm-simd128, ...
    memory_dtype: str = ""  # of matrices on the device: weights of two or more axes, no tables; absent: `dtype`
    kernels: tuple[
        FunctionKernels, ...
    ] = ()  # of webgpu: a browser compiles them in this order, and need not wait for all

    def dtype_on_device(self, stored: str, shape: Sequence[int], is_table: bool) -> str:
        """Return the dtype of a weight on the device: float16 is widened to the dtype that the library reads.

        Args:
            stored: its dtype in the shards.
            is_table: whether it is the table of a packed weight.
        """
        if stored != "float16":
            return stored
        return self.memory_dtype if self.memory_dtype and is_matrix(shape) and not is_table else self.dtype


@dataclass(frozen=True)
class ComponentEntry:
    """One component: a function of the library, its inputs and outputs, and the params that it is called with.

    Components can share a function, as ControlNets of one shape do, and they can share params.
    """

    function: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]  # a function with several outputs returns one tuple
    params: tuple[str, ...]  # in the order of the compiled function's last argument


@dataclass(frozen=True)
class ControlNetEntry:
    """One of the bundle's ControlNets: the names of its two components, and how a picture uses it."""

    name: str  # unique in the bundle, for example canny
    control_embedding: str
    controlnet: str
    global_pool_conditions: bool = False  # it averages its residuals and affects the prompt's context only
    kind: str = ""  # what its control images show, in ControlNet 1.1's words, if its name tells: canny, depth, ...
    graph: str = ""  # of its two functions; another ControlNet of an equal graph can be added to the bundle


@dataclass(frozen=True)
class TokenizerSpec:
    """The tokenizer's file, and how a prompt is padded to T tokens."""

    file: str
    max_length: int  # T, which includes the begin and end tokens
    begin_id: int
    end_id: int
    pad_id: int


@dataclass(frozen=True)
class SamplersSpec:
    """The file that describes the samplers, and which one is the default."""

    file: str
    default: str


@dataclass(frozen=True)
class LatentPreview:
    """rgb (0..1) = weight @ x0 + bias for each latent cell: a least-squares fit, computed at build time."""

    weight: tuple[tuple[float, ...], ...]  # [3, latent channels]
    bias: tuple[float, ...]  # [3]


@dataclass(frozen=True)
class MemoryMode:
    """One way to hold the weights of the components that draw."""

    peak_bytes: int  # of device memory while a picture is drawn with one ControlNet
    step_upload_bytes: int  # of weights that are uploaded in every denoising step
    kept_params: Mapping[str, int]  # number of a component's leading params that stay on the device between its calls


@dataclass(frozen=True)
class MemoryPlan:
    """The two modes of one library. export/weight_residency.py plans them."""

    resident: MemoryMode  # all weights stay on the device
    reduced: MemoryMode  # some weights are uploaded when a component needs them


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle, with its size and hash."""

    path: str  # relative to the bundle, with /
    bytes: int
    sha256: str  # 64 hex digits


@dataclass(frozen=True)
class Manifest:
    """Everything that a runtime must know of a bundle: the content of manifest.json."""

    format_version: int
    model: ModelSummary
    target: str
    libraries: tuple[Library, ...]
    components: Mapping[str, ComponentEntry]
    controlnets: tuple[ControlNetEntry, ...]
    params: ParamsSpec
    tokenizer: TokenizerSpec
    samplers: SamplersSpec
    defaults: Defaults
    latent_preview: LatentPreview
    memory: Mapping[str, MemoryPlan]  # by library file
    parity_db: Mapping[str, Mapping[str, float]]  # component, then library dtype
    versions: Mapping[str, str]
    more_tokenizers: tuple[TokenizerSpec, ...] = ()  # of the second text encoder, if there is one
    variants: tuple[Variant, ...] = ()  # besides the model's own size and one chunk, which the components serve
    files: tuple[FileEntry, ...] = ()  # every file except the manifest; BundleWriter adds them

    def to_bytes(self) -> bytes:
        """Return the content of manifest.json: UTF-8 JSON, one key per line. Its sha256 is the hash of the bundle."""
        return (json.dumps(to_json(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str = MANIFEST_NAME) -> "Manifest":
        """Parse and validate; `where` names the file in errors.

        Raises UserError for anything that is not a complete manifest of this format version.
        """
        raw = _parse(data, where)
        version = raw.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{where}: format_version",
                repr(version),
                str(FORMAT_VERSION),
                "build the bundle again with this version of mlc_controlnet",
            )
        manifest: Manifest = from_json(cls, raw, where)
        manifest.validate(where)
        return manifest

    def validate(self, where: str = MANIFEST_NAME) -> None:
        """Check what types cannot express: file names stay inside the bundle, and every reference has a target."""
        for subject, got, wanted in faults_of(self):
            raise UserError(f"{where}: {subject}", got, wanted, REMEDY)

    @property
    def inpaints(self) -> bool:
        """Whether the UNet reads a mask and a masked picture: the pipeline then needs both."""
        return inpaints(self.components)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the pictures that the bundle draws, in pixels; the first is the default."""
        sizes = [(self.model.height, self.model.width), *((v.height, v.width) for v in self.variants)]
        return tuple(dict.fromkeys(sizes))

    def for_size(self, height: int, width: int) -> "Manifest":
        """Return the manifest with another of its sizes as the default."""
        if (height, width) == self.sizes[0]:
            return self
        variant = next(v for v in self.variants if (v.height, v.width, v.chunks) == (height, width, 1))
        model = dataclasses.replace(self.model, height=height, width=width)
        return dataclasses.replace(self, model=model, components=variant.apply_to(self.components))

    @property
    def max_chunks(self) -> int:
        """The largest number of chunks of a prompt."""
        return max((variant.chunks for variant in self.variants), default=1)

    @property
    def embeds_guidance(self) -> bool:
        """Whether the UNet reads the guidance scale: guidance then takes one call of the UNet instead of two."""
        return any(tensor.name == "guidance_scale" for tensor in self.components[UNET].inputs)

    @property
    def residuals(self) -> tuple[TensorSpec, ...]:
        """The ControlNets' outputs as the UNet reads them: one for each skip connection, then the middle block's."""
        return tuple(tensor for tensor in self.components[UNET].inputs if "residual" in tensor.name)

    @property
    def text_layers(self) -> int:
        """The number of the text encoder's layers that lead to the context; of two, of the one with fewer."""
        return min(self.layers_of(name) for name in TEXT_ENCODERS if name in self.components)

    def layers_of(self, text_encoder: str) -> int:
        """Return the number of a text encoder's layers that lead to its context."""
        _token_ids, layer_gates, *_ = self.components[text_encoder].inputs
        return layer_gates.shape[0]

    @property
    def reads_time_ids(self) -> bool:
        """Whether this is Stable Diffusion XL: UNet and ControlNets read a pooled output and sizes of pictures."""
        return TEXT_ENCODER_2 in self.components

    def check_can_draw(self, where: str) -> None:
        """Raise UserError if a component for drawing is missing, or the UNet has inputs that the pipeline lacks."""
        drawing = drawing_components(self.components)
        if missing := [name for name in drawing if name not in self.components]:
            raise UserError(
                where, f"no {', '.join(missing)}", f"{', '.join(drawing)}", "build the bundle again without --component"
            )
        sample = _sample_shape(self.components)
        if len(sample) != 4 or sample[1] not in (self.model.latent_channels, INPAINTING_CHANNELS):
            raise UserError(
                f"{where}: unet",
                f"a sample of {list(sample)}",
                f"{self.model.latent_channels} channels, the latents, or an inpainting model's {INPAINTING_CHANNELS}",
                "call the components yourself: the pipeline supports these models only",
            )

    def with_files(self, files: tuple[FileEntry, ...]) -> "Manifest":
        """Return the same manifest with another list of files."""
        return dataclasses.replace(self, files=files)


def inpaints(components: Mapping[str, ComponentEntry]) -> bool:
    """Return whether the UNet's sample holds a mask and a masked picture's latents after the latents to denoise."""
    return _sample_shape(components)[1:2] == (INPAINTING_CHANNELS,)


def drawing_components(components: Mapping[str, ComponentEntry]) -> tuple[str, ...]:
    """List the components that drawing needs: with a second text encoder, and an inpainting model's VAE encoder."""
    second = (TEXT_ENCODER_2,) if TEXT_ENCODER_2 in components else ()
    return (*DRAWING, *second, *((VAE_ENCODER,) if inpaints(components) else ()))


def _sample_shape(components: Mapping[str, ComponentEntry]) -> tuple[int, ...]:
    inputs = components[UNET].inputs if UNET in components else ()
    return next((tensor.shape for tensor in inputs if tensor.name == "sample"), ())


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        raw = json.loads(data.decode())
    except ValueError as error:
        raise UserError(where, f"text that is not JSON ({error})", "a bundle's manifest", REMEDY) from None
    if not isinstance(raw, dict):
        raise UserError(where, f"a JSON {type(raw).__name__}", "an object", REMEDY)
    return raw
