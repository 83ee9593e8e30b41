"""How much of a device's memory a picture takes, with all weights on the device and with some of them in turn.

`resident`: every weight of the components that draw stays on the device.

`reduced`: a component's weights are on the device while it runs, and some stay between its calls. The text encoder, an
inpainting model's encoder, the control embedding and the decoder run once a picture: they come, run and go. ControlNet
and UNet take turns at every step, so what leaves must be uploaded again 20 to 40 times a picture, and two thoughts keep
that small:

- The peak is that of the UNet's turn. To take more of the UNet away in the ControlNet's turn than the ControlNet needs
  room for saves nothing: as many bytes of the UNet leave as come back of the ControlNet, and no more.
- Both halves of classifier-free guidance run through the ControlNet before either runs through the UNet: one change of
  turns a step, at the price of a second set of residuals (13 MB).

So the end of the ControlNet's weights, `SWAPPED_SHARE` of its bytes, changes places with as much of the UNet's. Stable
Diffusion 1.5 with a ControlNet, float16, 512x512:

    share swapped              peak      uploaded a step
    0 (resident)               3.14 GB   0
    1/2                        2.15 GB   0.74 GB
    1                          1.80 GB   1.45 GB
    "the running one alone"    1.80 GB   2.44 GB

A half meets 2.2 GB, the memory that a GPU of 3 GB has left beside the screen. At 3 GB/s, which queue.writeBuffer can
reach over PCIe (two copies on the processor, then the bus), it costs 0.25 s a step. The weights that come and go wait
in the processor's memory, 1.1 GB. Reading them from the browser's cache at every step, at the 0.5 GB/s measured, would
take six times as long, and a GPU that lacks 3.2 GB mostly has its own memory beside the processor's.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mlc_controlnet.bundle.manifest import (
    DTYPE_BYTES,
    ComponentEntry,
    Library,
    MemoryMode,
    MemoryPlan,
    ParamsSpec,
    drawing_components,
)
from mlc_controlnet.components import (
    COMPUTE,
    CONTROL_EMBEDDING,
    CONTROLNET,
    TEXT_ENCODER,
    UNET,
    VAE_DECODER,
    VAE_ENCODER,
    TensorSpec,
)

SWAPPED_SHARE = 0.5
GUIDED = 2  # contexts and sets of residuals with classifier-free guidance


def plan_memory(
    libraries: Sequence[Library], components: Mapping[str, ComponentEntry], params: ParamsSpec
) -> dict[str, MemoryPlan]:
    """The plan of each library, by its file. Bytes are those of buffers that live on the device at the same time."""
    return {library.file: _Planner(library, components, params).plan() for library in libraries}


class _Planner:
    def __init__(self, library: Library, components: Mapping[str, ComponentEntry], params: ParamsSpec) -> None:
        self.library = library
        self.components = components
        self.records = {record.name: record for record in params.records}
        self.drawing = [name for name in drawing_components(components) if name in components]

    def plan(self) -> MemoryPlan:
        everything = {name: len(self.components[name].params) for name in self.drawing}
        both = CONTROLNET in self.drawing and UNET in self.drawing
        return MemoryPlan(self._mode(everything), self._mode(self._turns() if both else {}))

    def _turns(self) -> dict[str, int]:
        """How many params of ControlNet and UNet stay between their turns."""
        controlnet, unet = self._sizes(CONTROLNET), self._sizes(UNET)
        kept = int(np.searchsorted(np.cumsum(controlnet), (1 - SWAPPED_SHARE) * sum(controlnet), side="right"))
        room = sum(controlnet[kept:])  # what the UNet's last params have to make in the ControlNet's turn
        left = int(np.searchsorted(np.cumsum([0, *unet[::-1]]), room))
        return {CONTROLNET: kept, UNET: max(len(unet) - left, 0)}

    def _mode(self, kept: Mapping[str, int]) -> MemoryMode:
        """The mode in which of each component so many params stay, from its first."""
        counts = {name: kept.get(name, 0) for name in self.components}
        staying = sum(sum(self._sizes(name)[: counts[name]]) for name in self.drawing)
        swapped = {name: sum(self._sizes(name)[counts[name] :]) for name in self.drawing}
        peaks = [staying + swapped[name] + self._beside_weights(name, any(swapped.values())) for name in self.drawing]
        return MemoryMode(
            peak_bytes=max(peaks, default=0),
            step_upload_bytes=swapped.get(CONTROLNET, 0) + swapped.get(UNET, 0),
            kept_params=counts,
        )

    def _beside_weights(self, name: str, swaps: bool) -> int:
        """What is on the device beside weights while `name` runs: what it works in, and what others left for later."""
        context, embedding, residuals = (self._outputs(c) for c in (TEXT_ENCODER, CONTROL_EMBEDDING, CONTROLNET))
        work = self.library.activation_bytes.get(name, 0)  # its own outputs are among them
        alive = {
            TEXT_ENCODER: context,
            VAE_ENCODER: GUIDED * context,
            CONTROL_EMBEDDING: GUIDED * context,
            CONTROLNET: GUIDED * context + embedding + (GUIDED - 1) * residuals,
            UNET: GUIDED * context + embedding + GUIDED * residuals,
            VAE_DECODER: GUIDED * context + embedding,
        }[name]
        if name == UNET and not swaps:  # the ControlNet's workspace is kept for the next step
            alive += self.library.activation_bytes.get(CONTROLNET, 0) - residuals
        return work + alive + self._host_tensors()

    def _host_tensors(self) -> int:
        """What the host writes into, a tensor an input, and the copy of the picture that it reads from."""
        inputs = [spec for name in self.drawing for spec in self.components[name].inputs if spec.dtype != COMPUTE]
        return sum(map(self._bytes, inputs)) + self._outputs(VAE_DECODER)

    def _outputs(self, name: str) -> int:
        return sum(map(self._bytes, self.components[name].outputs)) if name in self.components else 0

    def _bytes(self, spec: TensorSpec) -> int:
        resolved = spec.resolved(self.library.dtype)
        return int(np.prod(resolved.shape)) * DTYPE_BYTES[resolved.dtype]

    def _sizes(self, name: str) -> list[int]:
        """Bytes of each param of a component on the device: float16 is widened for a library in float32."""
        records = [self.records[param] for param in self.components[name].params]
        return [
            record.bytes * (DTYPE_BYTES[self.library.dtype] // 2 if record.dtype == "float16" else 1)
            for record in records
        ]
