"""Prompt + control image + seed -> picture; of an inpainting model, a picture of which a part is repainted.

Twin: web/src/engine/pipeline.ts, the same functions in the same order.
"""

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.manifest import LatentPreview
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.sampler_table import SamplerRow, SamplerTable, pick_table, tables_from_json
from mlc_controlnet.components import CONTROL_EMBEDDING, CONTROLNET, TEXT_ENCODER, UNET, VAE_DECODER, VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.runtime.engine import Context, ControlEmbedding, Engine, Residuals
from mlc_controlnet.runtime.inpainting import Inpainting, prepare_inpainting
from mlc_controlnet.runtime.noise import MAX_SEED, check_seed, standard_normal
from mlc_controlnet.runtime.tokenizer import PromptTokenizer


@dataclass(frozen=True)
class Settings:
    """Everything that decides a picture beside the pictures given and the bundle; no field is left open."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    conditioning_scale: float
    control_guidance_start: float
    control_guidance_end: float
    sampler: str


@dataclass(frozen=True)
class Step:
    """What is known after one step of the denoising loop."""

    index: int  # 0 .. count - 1
    count: int
    timestep: float
    x: np.ndarray  # float32 [1, C, h, w]: the sample after this step
    x0: np.ndarray  # float32 [1, C, h, w]: the finished latents as this step foresees them
    latent_preview: LatentPreview

    @cached_property
    def preview(self) -> Image.Image:
        """x0 as a small RGB picture, w x h, one pixel a latent cell; made when it is asked for."""
        weight, bias = np.array(self.latent_preview.weight), np.array(self.latent_preview.bias)
        rgb = np.einsum("rc,chw->hwr", weight, self.x0[0]) + bias  # [h, w, 3]
        return to_picture(rgb)


@dataclass(frozen=True)
class PipelineOutput:
    images: list[Image.Image]
    settings: Settings
    notices: tuple[str, ...]  # what the user should know: a prompt that was cut, a control image that was scaled
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
        """Load the bundle at `path` on `device` (llvm, cuda, ...; by default what the bundle is for).

        With `reduced_memory` not all weights stay on the device: about a third less of its memory, the same pictures,
        and an upload at every step.

        Raises UserError where there is no sound bundle, it lacks a component that a picture takes, or there is no such
        device.
        """
        bundle = path if isinstance(path, Bundle) else read_bundle(path)
        bundle.manifest.check_can_draw(str(bundle.path))
        return cls(Engine.load(bundle, device, reduced_memory))

    def unload(self) -> None:
        """Free the device's memory. The pipeline can not be used again."""
        self.engine.unload()

    def __call__(
        self,
        prompt: str,
        image: Image.Image | None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        controlnet_conditioning_scale: float | None = None,
        seed: int | None = None,
        latents: np.ndarray | None = None,
        sampler: str | None = None,
        on_step: Callable[[Step], None] | None = None,
        mask_image: Image.Image | None = None,
        control_image: Image.Image | None = None,
        control_guidance_start: float = 0.0,
        control_guidance_end: float = 1.0,
    ) -> PipelineOutput:
        """Draw one picture. The names are those of diffusers' StableDiffusionControlNetPipeline and, for a bundle of an
        inpainting model, of its StableDiffusionControlNetInpaintPipeline.

        Args:
            prompt, negative_prompt: texts; the negative one is "" by default and read where guidance_scale > 1.
            image: the control image, any size and mode; where `control_image` is given, the picture to repaint.
            mask_image, control_image: of an inpainting model. Where the mask is white the picture is repainted; what is
                not repainted goes through the VAE and is close to the original, not equal to it.
            num_inference_steps, guidance_scale, controlnet_conditioning_scale, sampler: the bundle's own defaults.
            seed: 0 to 2**53 - 1 in place of diffusers' generator; drawn at random where None, see `settings.seed`.
            latents: float32 [1, C, h, w], standard normal, in place of the seed's noise.
            on_step: called after every step; what it raises ends the loop.
            control_guidance_start, control_guidance_end: the share of the steps, 0..1, that the control image steers.
                The ControlNet does not run in the others, nor where its scale is 0.

        Raises UserError for every argument that can not be used, before anything is computed, and for a component
        that returns NaN or infinity.
        """
        settings = self.resolve(
            prompt,
            num_inference_steps,
            guidance_scale,
            negative_prompt,
            controlnet_conditioning_scale,
            seed,
            sampler,
            control_guidance_start,
            control_guidance_end,
        )
        if mask_image is None and control_image is None:
            control_image, image = image, None
        prepared = prepare_control_image(control_image, self.manifest.model.height, self.manifest.model.width)
        inpainting = prepare_inpainting(image, mask_image, self.manifest)
        x = self.initial_latents(settings, latents)
        contexts, cut_notices = self.encode_prompts(settings)
        beside = () if inpainting is None else (inpainting.mask, self.encode_masked_image(inpainting))
        control = self.engine.control_embedding(prepared.array)
        for step in self.denoise(settings, control, contexts, x, beside):
            x = step.x
            if on_step is not None:
                on_step(step)
        return PipelineOutput(
            images=[self.decode(x, settings)],
            settings=settings,
            notices=(*cut_notices, *prepared.notices, *(() if inpainting is None else inpainting.notices)),
            metadata=self.describe(settings),
        )

    def resolve(
        self,
        prompt: str,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        controlnet_conditioning_scale: float | None = None,
        seed: int | None = None,
        sampler: str | None = None,
        control_guidance_start: float = 0.0,
        control_guidance_end: float = 1.0,
    ) -> Settings:
        """Put the bundle's defaults in place of None and check every value. Raises UserError for what can not be."""
        defaults = self.manifest.defaults
        guidance = defaults.guidance_scale if guidance_scale is None else guidance_scale
        conditioning = (
            defaults.conditioning_scale if controlnet_conditioning_scale is None else controlnet_conditioning_scale
        )
        settings = Settings(
            prompt=prompt,
            negative_prompt="" if negative_prompt is None else negative_prompt,
            seed=secrets.randbelow(MAX_SEED + 1) if seed is None else seed,
            steps=defaults.steps if num_inference_steps is None else num_inference_steps,
            guidance_scale=_finite(guidance, "guidance scale"),
            conditioning_scale=_finite(conditioning, "conditioning scale"),
            control_guidance_start=_finite(control_guidance_start, "control guidance start"),
            control_guidance_end=_finite(control_guidance_end, "control guidance end"),
            sampler=self.manifest.samplers.default if sampler is None else sampler,
        )
        check_seed(settings.seed)
        _check_interval(settings.control_guidance_start, settings.control_guidance_end)
        self._table(settings)
        return settings

    def initial_latents(self, settings: Settings, latents: np.ndarray | None = None) -> np.ndarray:
        """Noise of the seed, or the caller's, times the sampler's first deviation: float32 [1, C, h, w]."""
        model = self.manifest.model
        cells = (model.height // model.vae_scale_factor, model.width // model.vae_scale_factor)
        shape = (1, model.latent_channels, *cells)
        if latents is None:
            latents = standard_normal(shape, settings.seed)
        elif np.shape(latents) != shape or not np.isfinite(latents).all():
            got = f"{list(np.shape(latents))}" + ("" if np.shape(latents) != shape else " with NaN or infinity")
            raise UserError("latents", got, f"{list(shape)} of finite numbers", "draw them from a normal distribution")
        return (np.asarray(latents, np.float64) * self._table(settings).init_noise_sigma).astype(np.float32)

    def encode_prompts(self, settings: Settings) -> tuple[list[Context], tuple[str, ...]]:
        """The prompt's context and, where guidance asks for it, before it the negative prompt's; and what was cut."""
        texts = {"prompt": settings.prompt}
        if settings.guidance_scale > 1:
            texts = {"negative prompt": settings.negative_prompt, **texts}
        tokenized = {name: self._tokenizer.encode(text, name) for name, text in texts.items()}
        tokens = self.manifest.tokenizer.max_length
        notices = [
            f"{name}: longer than {tokens} tokens, this end was cut: {prompt.cut_text!r}"
            for name, prompt in tokenized.items()
            if prompt.cut_text
        ]
        return [self.engine.text_encoder(prompt.token_ids) for prompt in tokenized.values()], tuple(notices)

    def encode_masked_image(self, inpainting: Inpainting) -> np.ndarray:
        """The latents of what is not repainted: float32 [1, C, h, w].

        They are the mode of the VAE's posterior, which diffusers draws a sample from: the seed decides the noise alone.
        """
        moments = self.engine.vae_encoder(inpainting.masked_image)  # [1, 2 C, h, w]
        _check_finite(VAE_ENCODER, moments, "before step 1")
        mean = moments[:, : self.manifest.model.latent_channels]
        return (mean.astype(np.float64) * self.manifest.model.scaling_factor).astype(np.float32)

    def denoise(
        self,
        settings: Settings,
        control: ControlEmbedding,
        contexts: list[Context],
        x: np.ndarray,
        beside: Sequence[np.ndarray] = (),
    ) -> Iterator[Step]:
        """The denoising loop: yields after every step, so progress, preview and cancelling belong to the caller.

        `beside`: the further channels of an inpainting UNet's sample, float32 [1, _, h, w] each.
        """
        rows = self._table(settings).rows
        previous_x0 = np.zeros_like(x)
        unsteered: Residuals | None = None  # made once, when a step wants it
        for index, row in enumerate(rows):
            where = f"step {index + 1} of {len(rows)}"
            scale = scale_at(settings, index)
            free = self._free_contexts(len(contexts), scale)
            if free and unsteered is None:
                unsteered = self.engine.zero_residuals()
            left_alone = [unsteered] * free if unsteered is not None else []
            scaled_x = (x.astype(np.float64) * row.model_input_scale).astype(np.float32)
            outputs = self._predict(scaled_x, row.timestep, contexts, control, beside, scale, left_alone, where)
            m = guide(outputs, settings.guidance_scale)
            x, previous_x0 = advance(row, x, m, previous_x0)
            yield Step(index, len(rows), row.timestep, x, previous_x0, self.manifest.latent_preview)

    def decode(self, x: np.ndarray, settings: Settings) -> Image.Image:
        """Latents float32 [1, C, h, w] -> picture."""
        image = self.engine.vae_decoder(x)  # [1, 3, H, W]
        _check_finite(VAE_DECODER, image, f"after {settings.steps} steps")
        return to_picture(image[0].transpose(1, 2, 0).astype(np.float64) / 2 + 0.5)

    def describe(self, settings: Settings) -> dict[str, str]:
        """What a PNG file says about how it was made."""
        return {
            "prompt": settings.prompt,
            "negative_prompt": settings.negative_prompt,
            "seed": str(settings.seed),
            "steps": str(settings.steps),
            "guidance_scale": str(settings.guidance_scale),
            "conditioning_scale": str(settings.conditioning_scale),
            "control_guidance_start": str(settings.control_guidance_start),
            "control_guidance_end": str(settings.control_guidance_end),
            "sampler": settings.sampler,
            "model": self.manifest.model.name,
            "bundle_sha256": self.engine.bundle.sha256,
        }

    def _predict(
        self,
        scaled_x: np.ndarray,
        timestep: float,
        contexts: list[Context],
        control: ControlEmbedding,
        beside: Sequence[np.ndarray],
        scale: float,
        left_alone: Sequence[Residuals],
        where: str,
    ) -> list[np.ndarray]:
        """The UNet's output under control, for each context: float32 [1, C, h, w].

        `left_alone`: the residuals of the first contexts, for which the ControlNet does not run.
        """
        # The ControlNet for every context, then the UNet: where their weights take turns, one turn a step.
        residuals = [*left_alone]
        for context in contexts[len(left_alone) :]:
            residuals.append(self.engine.controlnet(scaled_x, timestep, context, control, scale))
        sample = np.concatenate([scaled_x, *beside], axis=1)
        outputs = [self.engine.unet(sample, timestep, *inputs) for inputs in zip(contexts, residuals, strict=True)]
        for context, residual, output in zip(contexts, residuals, outputs, strict=True):
            if np.isfinite(output).all():
                continue
            # Look back only now: reading the residuals of every step would cost time.
            _check_finite(TEXT_ENCODER, context.tensor.numpy(), where)
            _check_finite(CONTROL_EMBEDDING, control.tensor.numpy(), where)
            for tensor in residual.tensors:
                _check_finite(CONTROLNET, tensor.numpy(), where)
            _check_finite(UNET, output, where)
        return outputs

    def _free_contexts(self, contexts: int, scale: float) -> int:
        """How many, from the first, the ControlNet leaves alone."""
        if scale == 0:
            return contexts
        # As in diffusers, a ControlNet that pools its residuals is for the prompt alone.
        return contexts - 1 if self.manifest.model.global_pool_conditions else 0

    def _table(self, settings: Settings) -> SamplerTable:
        return pick_table(self._tables, settings.sampler, settings.steps)


def scale_at(settings: Settings, index: int) -> float:
    """The conditioning scale of step `index`: 0 before and after the share of the steps that is steered."""
    begins, ends = index / settings.steps, (index + 1) / settings.steps
    is_steered = begins >= settings.control_guidance_start and ends <= settings.control_guidance_end
    return settings.conditioning_scale if is_steered else 0.0


def guide(outputs: list[np.ndarray], guidance_scale: float) -> np.ndarray:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6): [m] or [m_negative, m_prompt] -> m, float64."""
    if len(outputs) == 1:
        return outputs[0].astype(np.float64)
    negative, positive = (output.astype(np.float64) for output in outputs)
    return negative + guidance_scale * (positive - negative)


def advance(row: SamplerRow, x: np.ndarray, m: np.ndarray, previous_x0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One step of the sampler: the next x and this step's x0. Computed in float64, kept in float32, as in the twin."""
    x0 = (row.x0_sample * x.astype(np.float64) + row.x0_output * m).astype(np.float32)
    following = (
        row.next_sample * x.astype(np.float64)
        + row.next_x0 * x0.astype(np.float64)
        + row.next_previous_x0 * previous_x0.astype(np.float64)
    )
    return following.astype(np.float32), x0


def to_picture(rgb: np.ndarray) -> Image.Image:
    """[H, W, 3] in 0..1, clipped -> RGB of 8 bits."""
    return Image.fromarray(np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8))


def _finite(value: float, subject: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(subject, repr(value), "a finite number", "choose another number")
    return float(value)


def _check_interval(start: float, end: float) -> None:
    if not 0 <= start < end <= 1:
        remedy = "leave both out to steer every step"
        raise UserError("control guidance", f"from {start} to {end}", "0 <= start < end <= 1", remedy)


def _check_finite(component: str, values: np.ndarray, where: str) -> None:
    broken = int((~np.isfinite(values)).sum())
    if broken:
        raise UserError(
            f"{component}, {where}",
            f"NaN or infinity in {broken} of {values.size} numbers",
            "finite numbers",
            "verify the bundle with python -m mlc_controlnet verify, or use its float32 library",
        )
