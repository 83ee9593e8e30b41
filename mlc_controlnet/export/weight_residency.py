"""Plan which weights stay on the device while a picture is drawn, and how much memory that needs.

A bundle describes two modes:

- `resident`: all weights of the components that draw stay on the device.
- `reduced`: some weights are on the device only while their component runs. The text encoder, an inpainting model's
  encoder, the control embedding and the decoder run once per picture, so their weights come, run and go. ControlNet and
  UNet take turns at every step, so each step must upload again what left the device. A preview decoder stays.

Two thoughts keep the upload of `reduced` small:

- The peak is in the UNet's turn. In the ControlNet's turn it saves nothing to remove more of the UNet than the
  ControlNet needs room for. So as many bytes of the UNet leave as bytes of the ControlNet return, and no more.
- Both halves of classifier-free guidance run through the ControlNet before either runs through the UNet. So the turns
  change once per step, at the price of a second set of residuals.

The last `SWAPPED_SHARE` of the ControlNet's bytes takes turns with as many bytes of the UNet. For Stable Diffusion 1.5
with a ControlNet, in float16 at 512x512, and relative to the peak of `resident`:

    share that is swapped           peak    upload per step
    0 (resident)                    1       0
    1/2                             0.69    0.24
    1                               0.57    0.46
    all but the running component   0.57    0.78

One half fits a GPU of 3 GB, which has about 2.2 GB left besides the screen. The weights that come and go wait in the
processor's memory. Reading them from the browser's cache at every step would take several times as long as the upload.

Weights that the device makes of others (a Control-LoRA's) are made one after another before their component's first
turn, when no component has activations on the device. From then on they are weights like all others: those that leave
are read back once and wait in the processor's memory too. Making them again would need the UNet's weights, which left.
The buffers that they are read through stay: TVM's web runtime keeps the last few.
"""

import math
from collections.abc import Mapping, Sequence, Set

import numpy as np

from mlc_controlnet.bundle.manifest import ComponentEntry, Library, MemoryMode, MemoryPlan, drawing_components
from mlc_controlnet.bundle.params import DTYPE_BYTES, ParamsSpec
from mlc_controlnet.bundle.variant import Variant
from mlc_controlnet.components import (
    COMPUTE,
    CONTROL_EMBEDDING,
    CONTROLNET,
    PREVIEW_DECODER,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    UNET_SHALLOW,
    VAE_DECODER,
    VAE_ENCODER,
    TensorSpec,
    kind_of,
)

SWAPPED_SHARE = 0.5
READ_BUFFERS = 4  # which the web runtime keeps, the largest ones
GUIDED = 2  # contexts and sets of residuals with classifier-free guidance


def plan_residency(
    libraries: Sequence[Library],
    components: Mapping[str, ComponentEntry],
    params: ParamsSpec,
    variants: Sequence[Variant] = (),
) -> dict[str, MemoryPlan]:
    """Return the plan of each library, by its file. Bytes count buffers that are on the device at the same time.

    Peaks are those of the variant that needs most.
    """

    def plan(library: Library) -> MemoryPlan:
        first = _ResidencyPlanner(library, components, params).plan()
        others = [
            _ResidencyPlanner(library, variant.apply_to(components), params, variant.chunks).plan()
            for variant in variants
        ]
        return MemoryPlan(
            _highest_peak([plan.resident for plan in (first, *others)]),
            _highest_peak([plan.reduced for plan in (first, *others)]),
        )

    return {library.file: plan(library) for library in libraries}


def _highest_peak(modes: Sequence[MemoryMode]) -> MemoryMode:
    """Return the mode with the highest peak. All of them keep and upload the same weights."""
    return max(modes, key=lambda mode: mode.peak_bytes)


class _ResidencyPlanner:
    def __init__(
        self, library: Library, components: Mapping[str, ComponentEntry], params: ParamsSpec, chunks: int = 1
    ) -> None:
        self.library = library
        self.chunks = chunks
        self.components = components
        self.records = {record.name: record for record in params.records}
        self.merged = {merged.name: merged for merged in params.merged}
        self.tables = params.tables
        drawing = (*drawing_components(components), PREVIEW_DECODER)
        self.drawing = [name for name in drawing if name in components]

    def plan(self) -> MemoryPlan:
        # Further ControlNets stay too once a picture has used them. They are not in the peak: most pictures use one.
        everything = {
            name: len(entry.params) for name, entry in self.components.items() if kind_of(name) in self.drawing
        }
        both = CONTROLNET in self.drawing and UNET in self.drawing
        return MemoryPlan(self._mode(everything), self._mode(self._turns() if both else {}))

    def _turns(self) -> dict[str, int]:
        """Return how many params of ControlNet and UNet stay on the device between their turns, from the first one."""
        controlnet, unet = self._sizes(CONTROLNET), self._sizes(UNET)
        kept = int(np.searchsorted(np.cumsum(controlnet), (1 - SWAPPED_SHARE) * sum(controlnet), side="right"))
        room = sum(controlnet[kept:])  # for these bytes, the UNet's last params leave in the ControlNet's turn
        left = int(np.searchsorted(np.cumsum([0, *unet[::-1]]), room))
        # A preview comes between two steps, and its decoder is small.
        return {CONTROLNET: kept, UNET: max(len(unet) - left, 0), PREVIEW_DECODER: len(self._sizes(PREVIEW_DECODER))}

    def _mode(self, kept: Mapping[str, int]) -> MemoryMode:
        """Return the mode in which `kept[name]` params of each component stay on the device, from the first one."""
        counts = {name: kept.get(name, 0) for name in self.components}
        own = {name: self.components[name].params for name in self.drawing}
        staying = {param for name, params in own.items() for param in params[: counts[name]]}
        leaving = {name: set(params) - staying for name, params in own.items()}
        swapped = {name: sum(map(self._size, params)) for name, params in leaving.items()}
        peaks = [
            swapped[name] + self._bytes_besides_weights(name, any(swapped.values()), self._merging(name, staying))
            for name in self.drawing
        ]
        return MemoryMode(
            peak_bytes=sum(map(self._size, staying)) + max(peaks, default=0) + self._read_buffers(leaving),
            step_upload_bytes=swapped.get(CONTROLNET, 0) + swapped.get(UNET, 0),
            kept_params=counts,
        )

    def _bytes_besides_weights(self, name: str, swaps: bool, merging: int) -> int:
        """Count the bytes on the device without weights in the turn of `name`: outputs needed later, and its own.

        merging: the bytes that making its weights takes, before it runs.
        """
        encoder = TEXT_ENCODER_2 if TEXT_ENCODER_2 in self.components else TEXT_ENCODER  # whose outputs are kept
        context, embedding, residuals = (self._outputs(c) for c in (encoder, CONTROL_EMBEDDING, CONTROLNET))
        context *= self.chunks
        deep_features = (
            GUIDED * sum(map(self._bytes, self.components[UNET].outputs[1:])) if UNET in self.components else 0
        )
        work = self._work(name)  # its own outputs are among them
        alive = {
            TEXT_ENCODER: context,
            TEXT_ENCODER_2: context + self._outputs(TEXT_ENCODER),
            VAE_ENCODER: GUIDED * context,
            CONTROL_EMBEDDING: GUIDED * context,
            CONTROLNET: GUIDED * context + embedding + (GUIDED - 1) * residuals,
            UNET: GUIDED * context + embedding + GUIDED * residuals + deep_features,
            PREVIEW_DECODER: GUIDED * context + embedding + GUIDED * residuals + deep_features,
            VAE_DECODER: GUIDED * context + embedding,
        }[name]
        if name == UNET and not swaps:  # the others' workspaces are kept for the next step
            alive += self._work(CONTROLNET) - residuals + self._work(UNET_SHALLOW)
        return max(work, merging) + alive + self._host_tensors()

    def _work(self, name: str) -> int:
        """Return the planned bytes of a component's activations; 0 of one that is not built."""
        entry = self.components.get(name)
        return 0 if entry is None else self.library.activation_bytes.get(entry.function, 0)

    def _host_tensors(self) -> int:
        """Count the bytes of the tensors that the host writes, one per input, and of the picture that it reads."""
        inputs = [spec for name in self.drawing for spec in self.components[name].inputs if spec.dtype != COMPUTE]
        return sum(map(self._bytes, inputs)) + self._outputs(VAE_DECODER)

    def _outputs(self, name: str) -> int:
        return sum(map(self._bytes, self.components[name].outputs)) if name in self.components else 0

    def _bytes(self, spec: TensorSpec) -> int:
        resolved = spec.resolved(self.library.dtype)
        return int(np.prod(resolved.shape)) * DTYPE_BYTES[resolved.dtype]

    def _merging(self, name: str, staying: Set[str]) -> int:
        """Count what making one of the component's weights takes besides it and those that stay: the largest of all."""
        made = [self.merged[param] for param in self.components[name].params if param in self.merged]
        return max(
            (
                sum(self._size(source) for source in merged.sources if source not in staying)
                + self.library.activation_bytes.get(merged.function, 0)
                for merged in made
            ),
            default=0,
        )

    def _read_buffers(self, leaving: Mapping[str, Set[str]]) -> int:
        """Count the buffers through which weights that leave are read back once: the web runtime's own pool."""
        made = [p for name in self.drawing for p in self.components[name].params if p in self.merged]
        pool: list[int] = []
        for size in (self._size(param) for param in made if any(param in params for params in leaving.values())):
            if not any(buffer >= size for buffer in pool):
                pool = sorted([*pool, size])[-READ_BUFFERS:]
        return sum(pool)

    def _sizes(self, name: str) -> list[int]:
        return [self._size(param) for param in self.components[name].params] if name in self.components else []

    def _size(self, param: str) -> int:
        """Return the bytes of a param on the device. Where a float32 library does not read float16, it is widened."""
        if param in self.merged:
            stored, shape = "float16", self.merged[param].shape
        else:
            stored, shape = self.records[param].dtype, self.records[param].shape
        return math.prod(shape) * DTYPE_BYTES[self.library.dtype_on_device(stored, shape, param in self.tables)]
