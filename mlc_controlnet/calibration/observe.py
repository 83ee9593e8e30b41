"""Draw pictures with torch, and keep what the components read and returned."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mlc_controlnet.calibration.moments import Watch, layers_of
from mlc_controlnet.calibration.pictures import Picture, held_out
from mlc_controlnet.calibration.torch_engine import Tensors, TorchEngine, unwritten_bundle
from mlc_controlnet.capture import CapturedModel, build_references
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import PREVIEW_DECODER, VAE_ENCODER
from mlc_controlnet.errors import print_notice
from mlc_controlnet.quantize.input_moments import InputMoments
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from mlc_controlnet.runtime.request import GenerateRequest

STEPS = 4  # of each picture, from noise to the end: what layers read depends on the timestep
KEPT_CALLS = 4  # of each component
SEED, HELD_OUT_SEED = 0, 1_000_000  # of the first picture


@dataclass
class Calls:
    """Some calls of each component, each as likely to be kept as another (reservoir sampling, algorithm R).

    Attributes:
        kept: component -> inputs and outputs.
    """

    kept: dict[str, list[tuple[Tensors, Tensors]]] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(SEED))

    def add(self, component: str, inputs: Tensors, outputs: Tensors) -> None:
        """Keep a call, or not."""
        self._seen[component] = seen = self._seen.get(component, 0) + 1
        kept = self.kept.setdefault(component, [])
        if len(kept) < KEPT_CALLS:
            kept.append((inputs, outputs))
        elif (place := int(self._rng.integers(seen))) < KEPT_CALLS:
            kept[place] = inputs, outputs


@dataclass(frozen=True)
class Observations:
    """What a calibration knows of a model.

    Attributes:
        moments: tensor of the checkpoint -> of the inputs of the layers whose weight it is.
        calls: component -> inputs and outputs, while the moments were taken.
        unseen: the same, of pictures with other noise.
    """

    moments: dict[str, InputMoments]
    calls: dict[str, list[tuple[Tensors, Tensors]]]
    unseen: dict[str, list[tuple[Tensors, Tensors]]]

    @property
    def inputs(self) -> dict[str, list[Tensors]]:
        """What `measure_sensitivities` takes."""
        return {name: [inputs for inputs, _ in calls] for name, calls in self.calls.items()}


def observe(
    checkpoint: Checkpoint, captured: CapturedModel, pictures: Sequence[Picture], weights: Collection[str]
) -> Observations:
    """Draw pictures in STEPS steps with torch in float32.

    Args:
        captured: after phase clean.
        weights: the tensors of the checkpoint whose layers are watched.

    Raises:
        UserError: as `ControlNetPipeline.generate`.
    """
    modules = build_references(checkpoint)
    watch = Watch(
        (tensor, module.get_submodule(path))
        for name, module in modules.items()
        for path, tensor in layers_of(name, checkpoint)
        if tensor in weights
    )
    bundle = unwritten_bundle(checkpoint, captured)
    again = held_out(pictures)
    steps = min(STEPS, checkpoint.defaults.steps)
    print(f"  torch draws {len(pictures)} + {len(again)} pictures in {steps} steps each ...", flush=True)
    calls, unseen = Calls(), Calls()
    _draw(ControlNetPipeline(TorchEngine(bundle, modules, calls.add)), pictures, SEED)
    moments = watch.end()
    _draw(ControlNetPipeline(TorchEngine(bundle, modules, unseen.add)), again, HELD_OUT_SEED)
    return Observations(moments, calls.kept, unseen.kept)


def _draw(pipeline: ControlNetPipeline, pictures: Sequence[Picture], seed: int) -> None:
    """Draw the pictures, and call the components that drawing from a prompt leaves out."""
    manifest = pipeline.manifest
    manifest.check_can_draw("--calibrate")
    size = (manifest.model.width, manifest.model.height)
    grey, mask = Image.new("RGB", size, (128, 128, 128)), Image.new("L", size)
    mask.paste(255, (size[0] // 2, 0, *size))
    requests = [
        GenerateRequest(
            prompt=picture.prompt,
            num_inference_steps=min(STEPS, manifest.defaults.steps),
            seed=seed + number,
            controlnets=() if picture.controlnet is None else (picture.controlnet,),
            control_image=picture.control_image,
            image=grey if manifest.inpaints else None,
            mask_image=mask if manifest.inpaints else None,
        )
        for number, picture in enumerate(pictures)
    ]
    notices: dict[str, None] = {}
    for drawn in pipeline.stream(requests):
        notices.update(dict.fromkeys(drawn.notices))
        if VAE_ENCODER in manifest.components:
            pixels = np.asarray(drawn.image, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
            pipeline.encode_image(pixels)
        if PREVIEW_DECODER in manifest.components:
            pipeline.engine.preview_decoder(drawn.latents)
    for notice in notices:
        print_notice(notice)
