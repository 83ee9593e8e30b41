"""A bundle's components as functions.

The host passes and receives numpy arrays. Values that only pass from one component to the next stay on the device.
Twin: web/src/engine/engine.ts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import tvm
from tvm.runtime.vm import VirtualMachine

from mlc_controlnet.bundle.manifest import ControlNetEntry, Library, MemoryMode
from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.bundle.variant import functions_by_shapes
from mlc_controlnet.components import (
    PREVIEW_DECODER,
    RESIDUAL_SUM,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    UNET_SHALLOW,
    VAE_DECODER,
    VAE_ENCODER,
)
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import (
    BUILD_COMMAND,
    INSTRUCTION_SETS,
    NATIVE,
    host_instruction_sets,
    without_any,
)
from mlc_controlnet.machine import processor_name, set_up_threads
from mlc_controlnet.runtime.weight_store import WeightStore
from mlc_controlnet.runtime.weights import Weights, free_workspace

# The manifest's name of a device -> TVM's name.
TVM_DEVICES = {"llvm": "cpu", "cuda": "cuda", "rocm": "rocm", "metal": "metal", "vulkan": "vulkan", "opencl": "opencl"}


@dataclass(frozen=True)
class Context:
    """An encoded prompt: compute dtype [1, T, D], on the device.

    Attributes:
        text_embeds: the pooled output that Stable Diffusion XL reads besides: compute dtype [1, P], on the device.
        time_ids: the sizes of pictures that it reads: float32 [1, 6].
    """

    tensor: Any
    text_embeds: Any = None
    time_ids: np.ndarray | None = None


@dataclass(frozen=True)
class ControlEmbedding:
    """A control image as its ControlNet reads it: compute dtype [1, C, h, w], on the device."""

    tensor: Any
    controlnet: ControlNetEntry  # which one reads it


@dataclass(frozen=True)
class Residuals:
    """The ControlNets' outputs, on the device: the UNet adds them to its skip connections and its middle block."""

    tensors: tuple[Any, ...]


@dataclass(frozen=True)
class DeepFeature:
    """What a whole UNet leaves for a shallow one, compute dtype [1, C, h, w], on the device."""

    tensor: Any


class Engine:
    """One loaded bundle. `load` puts library and weights on the device; `unload` frees them.

    Each component is a method with the component's name. The manifest states the shapes; the batch size is 1. Of the
    functions that a component has for several picture sizes and lengths of prompts, the inputs' shapes choose one.
    """

    def __init__(
        self,
        bundle: Bundle,
        library: Library,
        device: Any,
        reduced_memory: bool = False,
        store: WeightStore | None = None,
    ) -> None:
        plan = bundle.manifest.memory[library.file]
        self.bundle = bundle
        self.library = library
        self.device = device
        self.memory: MemoryMode = plan.reduced if reduced_memory else plan.resident
        if library.device == "llvm":
            set_up_threads()
        vm = VirtualMachine(tvm.runtime.load_module(str(bundle.verified_path(library.file))), device)
        self._vm: VirtualMachine | None = vm
        self.weights: Weights | None = Weights(bundle, self.memory, library, device, vm.__getitem__, store)
        self._functions = functions_by_shapes(bundle.manifest.components, bundle.manifest.variants)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        device: str | None = None,
        reduced_memory: bool = False,
        store: WeightStore | None = None,
    ) -> "Engine":
        """Load the library for `device` (llvm, cuda, ...), or the first that runs here, and the weights.

        With `reduced_memory`, some weights are uploaded when a component needs them: see the manifest's memory plan.
        Bundles that are given one `store` hold equal weights once.
        Every file is checked against its hash. Raises UserError if the bundle has no library for the device, the
        machine has no such device or a file is damaged.
        """
        return cls(bundle, *_pick_library(bundle, device), reduced_memory, store)

    def unload(self) -> None:
        """Free library and weights. The engine cannot be used afterwards."""
        self._vm = None
        self.weights = None
        free_workspace()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.unload()

    def text_encoder(self, token_ids: np.ndarray, clip_skip: int = 0) -> Context:
        """int32 [1, T] -> context, without the text encoder's last `clip_skip` layers, 0 .. L - 1."""
        return Context(self._call(TEXT_ENCODER, token_ids, self._layer_gates(TEXT_ENCODER, clip_skip)))

    def text_encoder_2(self, token_ids: np.ndarray, end_position: int, first: Context, clip_skip: int = 0) -> Context:
        """int32 [1, T], and the first text encoder's context -> the context of both, and the pooled output.

        end_position: of the first end token, where the pooled output is.
        """
        gates, end = self._layer_gates(TEXT_ENCODER_2, clip_skip), np.array([end_position], np.int32)
        return Context(*self._call(TEXT_ENCODER_2, token_ids, gates, end, first.tensor))

    def context(self, values: np.ndarray, text_embeds: np.ndarray | None = None) -> Context:
        """Put a context that the host computed on the device: float32 [1, T, D], and a pooled output, [1, P]."""
        pooled = None if text_embeds is None else self._to_device(text_embeds.astype(self.library.dtype))
        return Context(self._to_device(values.astype(self.library.dtype)), pooled)

    def control_embedding(self, control_image: np.ndarray, controlnet: ControlNetEntry) -> ControlEmbedding:
        """float32 control image [1, 3, H, W] in 0..1 -> its embedding, the same for every step."""
        return ControlEmbedding(self._call(controlnet.control_embedding, control_image), controlnet)

    def controlnet(
        self,
        sample: np.ndarray,
        timestep: float,
        context: Context,
        control: ControlEmbedding,
        conditioning_scales: Sequence[float],
    ) -> Residuals:
        """float32 sample [1, C, h, w] -> residuals, each already multiplied by its own scale."""
        timesteps, scales = np.array([timestep], np.float32), np.array(conditioning_scales, np.float32)
        name = control.controlnet.controlnet
        inputs = (sample, timesteps, context.tensor, *self._added(context), control.tensor, scales)
        return Residuals(tuple(self._call(name, *inputs)))

    def residual_sum(self, one: Residuals, other: Residuals) -> Residuals:
        """Add the residuals of two ControlNets."""
        return Residuals(tuple(self._call(RESIDUAL_SUM, *one.tensors, *other.tensors)))

    def zero_residuals(self, height: int, width: int) -> Residuals:
        """Return residuals of zeros for pictures of H x W: the UNet then computes the same as without a ControlNet."""
        residuals = self.bundle.manifest.for_size(height, width).residuals
        specs = [spec.resolved(self.library.dtype) for spec in residuals]
        return Residuals(tuple(self._to_device(np.zeros(spec.shape, spec.dtype)) for spec in specs))

    def unet(
        self,
        sample: np.ndarray,
        timestep: float,
        context: Context,
        residuals: Residuals,
        guidance_scale: float = 1.0,
    ) -> np.ndarray:
        """float32 sample [1, C, h, w] -> model output, float32 of the same shape.

        An inpainting model's sample has nine channels: `mlc_controlnet.runtime.inpainting`. A UNet that embeds the
        guidance scale reads it; others do not.
        """
        return self.unet_and_feature(sample, timestep, context, residuals, guidance_scale)[0]

    def unet_and_feature(
        self,
        sample: np.ndarray,
        timestep: float,
        context: Context,
        residuals: Residuals,
        guidance_scale: float = 1.0,
    ) -> tuple[np.ndarray, DeepFeature | None]:
        """Call the UNet and keep its deep feature; None of a bundle without a shallow UNet."""
        conditions = self._conditions(timestep, context, guidance_scale)
        result = self._call(UNET, sample, *conditions, *residuals.tensors)
        if UNET_SHALLOW not in self.bundle.manifest.components:
            return result.numpy(), None
        output, feature = result
        return output.numpy(), DeepFeature(feature)

    def unet_shallow(
        self,
        sample: np.ndarray,
        timestep: float,
        context: Context,
        feature: DeepFeature,
        residuals: Residuals,
        guidance_scale: float = 1.0,
    ) -> np.ndarray:
        """Return the UNet's output with the deep feature of another step.

        Of the residuals, it reads those of the skip connections that it computes.
        """
        inputs = self.bundle.manifest.components[UNET_SHALLOW].inputs
        count = sum("residual" in tensor.name for tensor in inputs)
        conditions = self._conditions(timestep, context, guidance_scale)
        return self._call(UNET_SHALLOW, sample, *conditions, feature.tensor, *residuals.tensors[:count]).numpy()

    def vae_decoder(self, latents: np.ndarray) -> np.ndarray:
        """float32 scaled latents [1, C, h, w] -> image, float32 [1, 3, H, W], about -1..1."""
        image = self._call(VAE_DECODER, latents).numpy()
        free_workspace()  # the largest workspace, and the decoder is the last component of a picture
        return image

    def preview_decoder(self, latents: np.ndarray) -> np.ndarray:
        """Do the same as `vae_decoder`, faster and less exactly. Only some bundles have this component."""
        return self._call(PREVIEW_DECODER, latents).numpy()

    def vae_encoder(self, image: np.ndarray) -> np.ndarray:
        """float32 image [1, 3, H, W] in -1..1 -> unscaled mean and log-variance, float32 [1, 2 C, h, w].

        A tiny autoencoder returns the unscaled latents alone: [1, C, h, w].
        """
        return self._call(VAE_ENCODER, image).numpy()

    def input_sizes(self, component: str) -> list[tuple[int, int]]:
        """List the heights and widths of a component's first input, [1, C, height, width], that it is compiled for."""
        own = self.bundle.manifest.components[component].function
        return [(shapes[0][2], shapes[0][3]) for function, shapes in self._functions if function == own]

    def synchronize(self) -> None:
        """Wait until the device has finished all its work. Measurements need it."""
        self.device.sync()

    def _layer_gates(self, text_encoder: str, clip_skip: int) -> np.ndarray:
        layers = self.bundle.manifest.layers_of(text_encoder)
        return (np.arange(layers) < layers - clip_skip).astype(np.float32)

    def _conditions(self, timestep: float, context: Context, guidance_scale: float) -> list[Any]:
        """Return a UNet's inputs between sample and residuals, with the guidance scale if it embeds that."""
        guidance = [np.array([guidance_scale], np.float32)] if self.bundle.manifest.embeds_guidance else []
        return [np.array([timestep], np.float32), context.tensor, *guidance, *self._added(context)]

    def _added(self, context: Context) -> list[Any]:
        return [context.text_embeds, context.time_ids] if self.bundle.manifest.reads_time_ids else []

    def _call(self, component: str, *inputs: Any) -> Any:
        if self._vm is None or self.weights is None:
            raise RuntimeError("the engine was unloaded")
        own = self.bundle.manifest.components[component].function
        shapes = tuple(tuple(value.shape) for value in inputs)
        function = self._vm[self._functions.get((own, shapes), own)]  # TVM names a shape that is not its own
        return function(*(self._to_device(value) for value in inputs), self.weights.take(component))

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return tvm.runtime.tensor(np.ascontiguousarray(value), self.device)
        return value


def _pick_library(bundle: Bundle, wanted: str | None) -> tuple[Library, Any]:
    libraries = [library for library in bundle.manifest.libraries if wanted in (None, library.device)]
    runnable = [library for library in libraries if library.device in TVM_DEVICES]
    if not runnable:
        built_for = ", ".join(sorted({library.device for library in bundle.manifest.libraries}))
        raise UserError(
            f"{bundle.path}: libraries",
            f"{built_for} only",
            f"one for {wanted or 'this machine, for example llvm'}",
            f"build one with python -m mlc_controlnet build --target {wanted or 'llvm'}",
        )
    here = host_instruction_sets()
    runnable = [library for library in runnable if library.instruction_set in ("", *here)]
    if not runnable:
        _refuse_processor(bundle)
    for library in sorted(runnable, key=lambda library: ("", *here).index(library.instruction_set)):
        device = tvm.device(TVM_DEVICES[library.device])
        if device.exist:
            return library, device
    names = ", ".join(library.device for library in runnable)
    raise UserError("device", f"no {names} on this machine or in this TVM", "a device that works", "use an llvm bundle")


def _refuse_processor(bundle: Bundle) -> NoReturn:
    """Raise the error for a bundle without a library that this machine's processor runs."""
    built_for = ", ".join(library.instruction_set for library in bundle.manifest.libraries)
    if not host_instruction_sets():
        remedy = f"draw on another machine; libraries exist for {', '.join(INSTRUCTION_SETS)}"
        raise UserError("this machine", without_any(), built_for, remedy)
    raise UserError(
        f"{bundle.path}: libraries",
        f"{built_for} only",
        f"one for {' or '.join(host_instruction_sets())}: {processor_name()}",
        f"build one on this machine with {BUILD_COMMAND} --cpu {NATIVE}",
    )
