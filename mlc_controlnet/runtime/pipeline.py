"""Draw pictures with a bundle: text encoder, denoising loop, decoder.

Twin: web/src/engine/pipeline.ts, the same functions in the same order.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.manifest import LatentPreview
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.sampler_table import SamplerRow, SamplerTable, pick_table, tables_from_json
from mlc_controlnet.components import TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.runtime.controls import Control, control_units
from mlc_controlnet.runtime.engine import Context, Engine, Residuals
from mlc_controlnet.runtime.inpainting import Inpainting, prepare_inpainting
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.prompts import encode_prompt, pad_chunks, tokenize_prompt
from mlc_controlnet.runtime.request import GenerateRequest, Settings, resolve, to_metadata, words
from mlc_controlnet.runtime.tokenizer import PromptTokenizer

MAX_CHUNKS = 1  # of a prompt: what the UNet is compiled for


@dataclass(frozen=True)
class Conditions:
    """The inputs that are the same for every step of the denoising loop."""

    contexts: Sequence[Context]  # the prompt's; with guidance, the negative prompt's before it
    controls: Sequence[Control] = ()
    extra_channels: Sequence[np.ndarray] = ()  # of an inpainting UNet's sample, after the latents: float32 [1, _, h, w]


@dataclass(frozen=True)
class Step:
    """The state after one step of the denoising loop."""

    index: int  # 0 .. count - 1
    count: int
    timestep: float
    x: np.ndarray  # float32 [1, C, h, w]: the sample after this step
    x0: np.ndarray  # float32 [1, C, h, w]: the final latents as this step predicts them
    latent_preview: LatentPreview

    @cached_property
    def preview(self) -> Image.Image:
        """x0 as a small RGB picture, w x h, one pixel per latent cell; computed on first access, without the VAE."""
        weight, bias = np.array(self.latent_preview.weight), np.array(self.latent_preview.bias)
        rgb = np.einsum("rc,chw->hwr", weight, self.x0[0]) + bias  # [h, w, 3]
        return to_picture(rgb)


@dataclass(frozen=True)
class PipelineOutput:
    """One finished picture and how it was made."""

    images: list[Image.Image]
    settings: Settings  # complete: the defaults and the seed are filled in
    notices: tuple[str, ...]  # how the inputs were changed: a prompt that was cut, a control image that was scaled
    metadata: dict[str, str]  # for the PNG file


class ControlNetPipeline:
    """Draws pictures with one loaded bundle."""

    def __init__(self, engine: Engine) -> None:
        bundle = engine.bundle
        self.engine = engine
        self.manifest = bundle.manifest
        self._tokenizer = PromptTokenizer(bundle.read_file(self.manifest.tokenizer.file), self.manifest.tokenizer)
        samplers = self.manifest.samplers.file
        self._tables = tables_from_json(bundle.read_file(samplers), str(bundle.path / samplers))

    @classmethod
    def from_bundle(
        cls, path: Path | str | Bundle, device: str | None = None, reduced_memory: bool = False
    ) -> "ControlNetPipeline":
        """Load the bundle at `path` on `device` (llvm, cuda, ...; by default the device that it was built for).

        With `reduced_memory`, some weights are uploaded at every step instead of staying on the device. This takes
        about a third less device memory and more time; the pictures are the same.

        Raises UserError if there is no sound bundle, the bundle lacks a component that drawing needs, or this machine
        has no such device.
        """
        bundle = path if isinstance(path, Bundle) else read_bundle(path)
        bundle.manifest.check_can_draw(str(bundle.path))
        return cls(Engine.load(bundle, device, reduced_memory))

    def unload(self) -> None:
        """Free the device memory. The pipeline cannot be used afterwards."""
        self.engine.unload()

    def __call__(
        self,
        prompt: str,
        image: Image.Image | list[Image.Image] | None = None,
        *,
        control_image: Image.Image | list[Image.Image] | None = None,
        mask_image: Image.Image | None = None,
        latents: np.ndarray | None = None,
        on_step: Callable[[Step], None] | None = None,
        **options: Any,
    ) -> PipelineOutput:
        """Draw one picture, with the arguments of diffusers' StableDiffusionControlNetPipeline or, for an inpainting
        model, of its StableDiffusionControlNetInpaintPipeline.

        Args:
            prompt: the text that describes the picture.
            image: the control image, or a list of them; the picture to repaint if `control_image` is given too.
            control_image, mask_image, latents: see `GenerateRequest`.
            on_step: called after every step; an exception that it raises ends the loop.
            options: the other fields of `GenerateRequest`, for example `num_inference_steps`, `guidance_scale` or
                `seed` (an integer instead of diffusers' generator).

        Raises UserError as `generate` does, and TypeError for an option that does not exist.
        """
        if mask_image is None and control_image is None:
            control_image, image = image, None
        request = GenerateRequest(
            prompt=prompt,
            control_image=control_image,
            image=image,  # type: ignore[arg-type]  # prepare_inpainting refuses a list
            mask_image=mask_image,
            latents=latents,
            **options,
        )
        return self.generate(request, on_step)

    def generate(self, request: GenerateRequest, on_step: Callable[[Step], None] | None = None) -> PipelineOutput:
        """Draw one picture; `on_step` is called after every step, and an exception that it raises ends the loop.

        Raises UserError for every value that cannot be used, before anything is computed, and for a component that
        returns NaN or infinity.
        """
        settings = self.resolve(request)
        size = self.manifest.model.height, self.manifest.model.width
        prepared = [prepare_control_image(image, *size) for image in request.control_images]
        inpainting = prepare_inpainting(request.image, request.mask_image, self.manifest)
        x = self.initial_latents(settings, request.latents)
        contexts, notices = self.encode_prompts(settings)
        extra_channels = () if inpainting is None else (inpainting.mask, self.encode_masked_image(inpainting))
        controls = self.embed_controls(settings, [image.array for image in prepared])
        for step in self.denoise(settings, Conditions(contexts, controls, extra_channels), x):
            x = step.x
            if on_step is not None:
                on_step(step)
        return PipelineOutput(
            images=[self.decode(x, settings)],
            settings=settings,
            notices=(
                *notices,
                *(notice for image in prepared for notice in image.notices),
                *(() if inpainting is None else inpainting.notices),
            ),
            metadata=self.describe(settings),
        )

    def resolve(self, request: GenerateRequest) -> Settings:
        """Fill in the bundle's defaults and check every option. Raises UserError for a value that cannot be used."""
        return resolve(request, self.manifest, self._tables)

    def encode_prompts(self, settings: Settings) -> tuple[list[Context], tuple[str, ...]]:
        """Encode the prompt, and with guidance the negative prompt before it. Returns contexts and notices of cuts."""
        names = ["negative_prompt", "prompt"] if settings.guidance_scale > 1 else ["prompt"]
        prompts = [
            tokenize_prompt(getattr(settings, name), self._tokenizer, MAX_CHUNKS, settings.prompt_syntax, words(name))
            for name in names
        ]
        tokens = self.manifest.tokenizer.max_length
        notices = [
            f"{words(name)}: longer than {tokens} tokens, this end was cut: {prompt.cut_text!r}"
            for name, prompt in zip(names, prompts, strict=True)
            if prompt.cut_text
        ]
        contexts = [
            encode_prompt(self.engine, prompt, settings.clip_skip, words(name))
            for name, prompt in zip(names, pad_chunks(prompts, self._tokenizer), strict=True)
        ]
        return contexts, tuple(notices)

    def embed_controls(self, settings: Settings, control_images: Sequence[np.ndarray]) -> list[Control]:
        """Embed the control images, float32 [1, 3, H, W] in 0..1, each by its ControlNet."""
        units = control_units(settings, self.manifest.controlnets, len(self.manifest.residuals))
        pairs = zip(units, control_images, strict=True)
        return [Control(unit, self.engine.control_embedding(image, unit.controlnet)) for unit, image in pairs]

    def encode_masked_image(self, inpainting: Inpainting) -> np.ndarray:
        """Return the latents of the part that the model keeps: float32 [1, C, h, w].

        They are the mode of the VAE's posterior. diffusers samples from the posterior instead; here the seed
        determines nothing but the noise.
        """
        moments = self.engine.vae_encoder(inpainting.masked_image)  # [1, 2 C, h, w]
        _check_finite(VAE_ENCODER, moments, "before step 1")
        mean = moments[:, : self.manifest.model.latent_channels]
        return (mean.astype(np.float64) * self.manifest.model.scaling_factor).astype(np.float32)

    def initial_latents(self, settings: Settings, latents: np.ndarray | None = None) -> np.ndarray:
        """Scale the seed's or the caller's noise by the sampler's first standard deviation: float32 [1, C, h, w]."""
        model = self.manifest.model
        cells = (model.height // model.vae_scale_factor, model.width // model.vae_scale_factor)
        shape = (1, model.latent_channels, *cells)
        if latents is None:
            latents = standard_normal(shape, settings.seed)
        elif np.shape(latents) != shape or not np.isfinite(latents).all():
            got = f"{list(np.shape(latents))}" + ("" if np.shape(latents) != shape else " with NaN or infinity")
            raise UserError("latents", got, f"{list(shape)} of finite numbers", "draw them from a normal distribution")
        return (np.asarray(latents, np.float64) * self._table(settings).init_noise_sigma).astype(np.float32)

    def denoise(self, settings: Settings, conditions: Conditions, x: np.ndarray) -> Iterator[Step]:
        """Run the denoising loop. It yields after every step, so the caller can show progress, preview or cancel."""
        rows = self._table(settings).rows
        previous_x0 = np.zeros_like(x)
        zero_residuals = functools.cache(self.engine.zero_residuals)  # once per picture, if a step needs them
        for index, row in enumerate(rows):
            scaled_x = (x.astype(np.float64) * row.model_input_scale).astype(np.float32)
            active = [control for control in conditions.controls if control.unit.is_active(index, len(rows))]
            residuals = self._control(scaled_x, row.timestep, conditions.contexts, active, zero_residuals)
            outputs = self._predict(scaled_x, row.timestep, conditions, residuals)
            _check_outputs(conditions, residuals, outputs, f"step {index + 1} of {len(rows)}")
            m = guide(outputs, settings.guidance_scale)
            x, previous_x0 = advance(row, x, m, previous_x0)
            yield Step(index, len(rows), row.timestep, x, previous_x0, self.manifest.latent_preview)

    def decode(self, x: np.ndarray, settings: Settings) -> Image.Image:
        """Decode latents float32 [1, C, h, w] to a picture."""
        image = self.engine.vae_decoder(x)  # [1, 3, H, W]
        _check_finite(VAE_DECODER, image, f"after {settings.num_inference_steps} steps")
        return to_picture(image[0].transpose(1, 2, 0).astype(np.float64) / 2 + 0.5)

    def describe(self, settings: Settings) -> dict[str, str]:
        """Return the PNG file's metadata: everything needed to make the picture again, except its input pictures."""
        identity = {"model": self.manifest.model.name, "bundle_sha256": self.engine.bundle.sha256}
        return {**to_metadata(settings), **identity}

    def _control(
        self,
        scaled_x: np.ndarray,
        timestep: float,
        contexts: Sequence[Context],
        active: Sequence[Control],
        zero_residuals: Callable[[], Residuals],
    ) -> list[Residuals]:
        """Return the residuals for each context: the sum of those ControlNets that affect it, or zeros."""
        residuals = []
        for i, context in enumerate(contexts):
            is_negative = i < len(contexts) - 1
            made = (
                self.engine.controlnet(scaled_x, timestep, context, control.embedding, control.unit.residual_scales)
                for control in active
                if control.affects(is_negative)
            )
            residuals.append(self._sum(made) or zero_residuals())
        return residuals

    def _sum(self, residuals: Iterable[Residuals]) -> Residuals | None:
        """Add residuals; None if there are none. At most two sets are on the device at a time, and their sum."""
        return functools.reduce(
            lambda total, one: one if total is None else self.engine.residual_sum(total, one), residuals, None
        )

    def _predict(
        self, scaled_x: np.ndarray, timestep: float, conditions: Conditions, residuals: list[Residuals]
    ) -> list[np.ndarray]:
        """Return the UNet's output for each context: float32 [1, C, h, w]."""
        sample = np.concatenate([scaled_x, *conditions.extra_channels], axis=1)
        pairs = zip(conditions.contexts, residuals, strict=True)
        return [self.engine.unet(sample, timestep, context, residual) for context, residual in pairs]

    def _table(self, settings: Settings) -> SamplerTable:
        return pick_table(self._tables, settings.sampler, settings.num_inference_steps)


def guide(outputs: list[np.ndarray], guidance_scale: float) -> np.ndarray:
    """Apply classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m, float64."""
    if len(outputs) == 1:
        return outputs[0].astype(np.float64)
    negative, positive = (output.astype(np.float64) for output in outputs)
    return negative + guidance_scale * (positive - negative)


def advance(row: SamplerRow, x: np.ndarray, m: np.ndarray, previous_x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take one step of the sampler: return the next x and this step's x0. Computes in float64 and stores float32."""
    x0 = (row.x0_sample * x.astype(np.float64) + row.x0_output * m).astype(np.float32)
    following = (
        row.next_sample * x.astype(np.float64)
        + row.next_x0 * x0.astype(np.float64)
        + row.next_previous_x0 * previous_x0.astype(np.float64)
    )
    return following.astype(np.float32), x0


def to_picture(rgb: np.ndarray) -> Image.Image:
    """Turn [H, W, 3] in 0..1 into RGB of 8 bits; values outside are clipped."""
    return Image.fromarray(np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8))


def _check_outputs(
    conditions: Conditions, residuals: Sequence[Residuals], outputs: Sequence[np.ndarray], where: str
) -> None:
    """Raise UserError if an output is not finite. The error names the first component that returned such numbers."""
    for context, residual, output in zip(conditions.contexts, residuals, outputs, strict=True):
        if np.isfinite(output).all():
            continue
        # The inputs are copied to the host only now: to read them in every step would cost time.
        _check_finite(TEXT_ENCODER, context.tensor.numpy(), where)
        for control in conditions.controls:
            name = control.unit.controlnet.control_embedding
            _check_finite(name, control.embedding.tensor.numpy(), where)
        for tensor in residual.tensors:
            _check_finite(" + ".join(c.unit.controlnet.controlnet for c in conditions.controls), tensor.numpy(), where)
        _check_finite(UNET, output, where)


def _check_finite(component: str, values: np.ndarray, where: str) -> None:
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise UserError(
            f"{component}, {where}",
            f"NaN or infinity in {broken} of {values.size} numbers",
            "finite numbers",
            "try another seed; if the error remains, verify the bundle with python -m mlc_controlnet verify, "
            "or use its float32 library",
        )
