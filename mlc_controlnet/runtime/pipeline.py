"""Draw pictures with a bundle: text encoder, denoising loop, decoder.

Twin: web/src/engine/pipeline.ts, the same functions in the same order.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.bundle.sampler_description import read_samplers
from mlc_controlnet.components import VAE_DECODER, VAE_ENCODER
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.images.prepare import PreparedImage
from mlc_controlnet.runtime.batch import Prompts, Seeds, one_request_each
from mlc_controlnet.runtime.call import Enough, OnStep, as_on_step, check_call, like, numbered
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.runtime.controls import Control, control_units
from mlc_controlnet.runtime.crop import Crop
from mlc_controlnet.runtime.denoising import Conditions, Kept, add_noise, check_finite, denoise, to_picture
from mlc_controlnet.runtime.engine import Context, Engine
from mlc_controlnet.runtime.hires import hires_settings
from mlc_controlnet.runtime.inpainting import InitImage, Inpainting, paste, prepare_init_image, prepare_inpainting
from mlc_controlnet.runtime.latents import blend_latents, check_latents, upscale_latents
from mlc_controlnet.runtime.masked_content import mask_latents
from mlc_controlnet.runtime.metadata import to_metadata
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.runtime.option_pairs import notices_of
from mlc_controlnet.runtime.output import GeneratedImage, PipelineOutput, as_output_type
from mlc_controlnet.runtime.prompt_contexts import encode_prompts, with_time_ids
from mlc_controlnet.runtime.request import GenerateRequest, Settings
from mlc_controlnet.runtime.resolve import resolve, schedule_of
from mlc_controlnet.runtime.samplers.row import Schedule
from mlc_controlnet.runtime.tiles import run_at_any_size
from mlc_controlnet.runtime.tokenizer import PromptTokenizer
from mlc_controlnet.runtime.weight_store import WeightStore


class ControlNetPipeline:
    """Draws pictures with one loaded bundle."""

    def __init__(self, engine: Engine) -> None:
        bundle = engine.bundle
        self.engine = engine
        self.manifest = bundle.manifest
        specs = (self.manifest.tokenizer, *self.manifest.more_tokenizers)  # one for each text encoder
        self._tokenizers = [PromptTokenizer(bundle.read_file(spec.file), spec) for spec in specs]
        self._drawing = threading.Lock()  # held by the call that draws
        self._samplers = read_samplers(bundle)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str | Bundle,
        device: str | None = None,
        reduced_memory: bool = False,
        store: WeightStore | None = None,
    ) -> "ControlNetPipeline":
        """Load the bundle at `path` on `device` (llvm, cuda, ...; by default the device that it was built for).

        With `reduced_memory`, some weights are uploaded at every step instead of staying on the device. This takes
        about a third less device memory and more time; the pictures are the same. Pipelines that are given one `store`
        hold equal weights once, as those of one base model are; they stay as long as the store.

        Raises UserError if there is no sound bundle, the bundle lacks a component that drawing needs, or this machine
        has no such device.
        """
        bundle = path if isinstance(path, Bundle) else read_bundle(path)
        bundle.manifest.check_can_draw(str(bundle.path))
        return cls(Engine.load(bundle, device, reduced_memory, store))

    def unload(self) -> None:
        """Free the device memory. The pipeline cannot be used afterwards."""
        self.engine.unload()

    def __call__(
        self,
        prompt: Prompts = "",
        image: Image.Image | list[Image.Image] | np.ndarray | None = None,
        *,
        control_image: Image.Image | list[Image.Image] | np.ndarray | None = None,
        mask_image: Image.Image | None = None,
        negative_prompt: Prompts | None = None,
        num_images_per_prompt: int = 1,
        seed: Seeds = None,
        generator: Any = None,
        latents: np.ndarray | None = None,
        prompt_embeds: np.ndarray | None = None,
        negative_prompt_embeds: np.ndarray | None = None,
        output_type: str = "pil",
        on_step: OnStep | None = None,
        on_image: Callable[[GeneratedImage], None] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        return_dict: bool = True,
        **options: Any,
    ) -> PipelineOutput | tuple[Any, None]:
        """Draw pictures, with the arguments of diffusers' StableDiffusionControlNetPipeline and of its img2img and
        inpainting pipelines.

        Args:
            prompt, negative_prompt: the text that describes a picture, or a list with a text for each.
            image: the control image, or a list with one for each ControlNet in use. If `control_image` or `mask_image`
                is given: the picture to start from, or its latents, float32 [1, C, h, w].
            control_image, mask_image: see `GenerateRequest`.
            num_images_per_prompt: how many pictures of each prompt.
            seed: an integer, or a list with one for each picture. Picture i of one seed has the noise of seed + i.
            generator: in place of `seed`, torch's or a list of them. Its initial seed is read, not its numbers.
            latents: float32 [N, C, h, w], standard normal, in place of the seeds' noise.
            prompt_embeds, negative_prompt_embeds: float32 [1, T, D] in place of the texts.
            output_type: `pil`, `np` or `latent`: see `PipelineOutput`.
            on_step: called after every step. Latents that it returns replace the step's; an exception ends the call.
            on_image: called with every picture when it is finished.
            callback_on_step_end: diffusers': it takes this pipeline, the index, the timestep and a dict with `latents`.
            callback_on_step_end_tensor_inputs: diffusers': `latents` is what there is.
            return_dict: False returns the pictures and None, a tuple, as diffusers without a safety checker does.
            options: the other fields of `GenerateRequest`, for example `num_inference_steps` or `guidance_scale`.

        Raises UserError as `generate` does, and TypeError for an option that does not exist.
        """
        check_one_of("callback tensor inputs", list(callback_on_step_end_tensor_inputs), (["latents"], []))
        check_call(seed, generator, on_step, callback_on_step_end, output_type, options.get("padding_mask_crop"))
        if mask_image is None and control_image is None:
            control_image, image = image, None
        if callback_on_step_end is not None:
            on_step = as_on_step(self, callback_on_step_end)
        fixed = {
            "control_image": control_image,
            "image": image,
            "mask_image": mask_image,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
        }
        requests = one_request_each(
            prompt, negative_prompt, num_images_per_prompt, seed, generator, latents, {**fixed, **options}
        )
        generated = []
        for picture in self.stream(requests, on_step):
            generated.append(picture)
            if on_image is not None:
                on_image(picture)
        images = as_output_type(generated, output_type)
        return PipelineOutput(images, generated) if return_dict else (images, None)

    def stream(self, requests: Sequence[GenerateRequest], on_step: OnStep | None = None) -> Iterator[GeneratedImage]:
        """Draw a picture for each request and yield it when it is finished.

        All requests are checked before the first is drawn. Raises UserError as `generate` does.
        """
        for request in requests:
            self.resolve(request)
        for request in requests:
            yield self.generate(request, on_step)

    def generate(self, request: GenerateRequest, on_step: OnStep | None = None) -> GeneratedImage:
        """Draw one picture. `on_step` is called after every step; latents that it returns replace the step's, an
        exception that it raises ends the loop, and `Enough` ends it with the picture as the step predicts it.

        Raises UserError for every value that cannot be used and for a call while another one is running, before
        anything is computed, and for a component that returns NaN or infinity.
        """
        if not self._drawing.acquire(blocking=False):
            remedy = "wait for its end, or load another pipeline"
            raise UserError("pipeline", "a call while another one is running", "one call at a time", remedy)
        try:
            return self._generate(request, on_step)
        finally:
            self._drawing.release()

    def _generate(self, request: GenerateRequest, on_step: OnStep | None) -> GeneratedImage:
        settings = self.resolve(request)
        schedule = schedule_of(settings, self._samplers)
        manifest = self.manifest.for_size(settings.height, settings.width)
        blur, padding, content = settings.mask_blur, settings.padding_mask_crop, settings.masked_content
        inpainting = prepare_inpainting(request.image, request.mask_image, manifest, blur, padding, content)
        init = prepare_init_image(request.image, manifest) if inpainting is None else None
        crop = None if inpainting is None else inpainting.crop
        prepared = _prepare_controls(settings, request, crop)
        noise = self.initial_noise(settings, request.latents)
        unread = notices_of(settings, request, manifest)

        contexts, cuts = self.encode_prompts(settings, request)
        controls = self.embed_controls(settings, [image.array for image in prepared])
        x, extra_channels, kept = self.start(settings, schedule, noise, init, inpainting)
        conditions = Conditions(contexts, controls, extra_channels, kept)
        larger = None if settings.hires_scale is None else hires_settings(settings)
        before = len(schedule.rows)
        count = before + (0 if larger is None else len(schedule_of(larger, self._samplers).rows))
        try:
            x = self._run(settings, schedule, conditions, x, numbered(on_step, 0, count))
            if larger is not None:
                x = self.draw_larger(larger, request, contexts, x, numbered(on_step, before, count))
        except Enough as enough:
            x = enough.x0 if kept is None else blend_latents(enough.x0, kept.latents, kept.mask)
        image = self.decode(x, larger or settings)
        if inpainting is not None and (settings.apply_overlay or crop is not None):
            image = paste(image, inpainting)
        changed = [*prepared, *(part for part in (init, inpainting) if part is not None)]
        return GeneratedImage(
            image=image,
            latents=x,
            settings=settings,
            notices=(*unread, *cuts, *(notice for part in changed for notice in part.notices)),
            metadata=self.describe(settings),
        )

    def resolve(self, request: GenerateRequest) -> Settings:
        """Fill in the bundle's defaults and check every option. Raises UserError for a value that cannot be used."""
        return resolve(request, self.manifest, self._samplers)

    def encode_prompts(self, settings: Settings, request: GenerateRequest) -> tuple[list[Context], tuple[str, ...]]:
        """Encode the prompt, and with guidance the negative prompt before it. Returns contexts and notices of cuts."""
        return encode_prompts(self.engine, self._tokenizers, settings, request)

    def embed_controls(self, settings: Settings, control_images: Sequence[np.ndarray]) -> list[Control]:
        """Embed the control images, float32 [1, 3, H, W] in 0..1, each by its ControlNet."""
        units = control_units(settings, self.manifest.controlnets, len(self.manifest.residuals))
        pairs = zip(units, control_images, strict=True)
        return [Control(unit, self.engine.control_embedding(image, unit.controlnet)) for unit, image in pairs]

    def initial_noise(self, settings: Settings, latents: np.ndarray | None = None) -> np.ndarray:
        """Return the seed's or the caller's noise: float32 [1, C, h, w], standard normal."""
        manifest = self.manifest.for_size(settings.height, settings.width)
        if latents is not None:
            return check_latents("latents", latents, manifest, "draw them from a normal distribution")
        model = manifest.model
        cells = (model.height // model.vae_scale_factor, model.width // model.vae_scale_factor)
        return standard_normal((1, model.latent_channels, *cells), settings.seed)

    def start(
        self,
        settings: Settings,
        schedule: Schedule,
        noise: np.ndarray,
        init: InitImage | None = None,
        inpainting: Inpainting | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray], Kept | None]:
        """Return the first sample, float32 [1, C, h, w], and what a picture or a mask adds to the conditions.

        From noise alone, the sample is noise of the sampler's first standard deviation. From a picture, it is the
        picture's latents, noised for the first step that runs. Inpainting with strength 1 starts from noise alone.
        """
        from_noise = (noise.astype(np.float64) * schedule.init_noise_sigma).astype(np.float32)
        picture = init or inpainting
        if picture is None:
            return from_noise, [], None
        extra_channels = []
        if inpainting is not None and self.manifest.inpaints:
            extra_channels = [inpainting.mask, self.encode_image(inpainting.masked_image)]
            if settings.strength == 1:
                return from_noise, extra_channels, None
        is_latent = init is not None and init.is_latent
        latents = picture.array if is_latent else self.encode_image(picture.array)
        if inpainting is not None:
            latents = mask_latents(latents, noise, inpainting.mask, settings.masked_content)
        x = add_noise(schedule.rows[0], latents, noise) if schedule.rows else latents
        if inpainting is None or extra_channels:
            return x, extra_channels, None
        return from_noise if settings.strength == 1 else x, [], Kept(latents, noise, inpainting.mask)

    def draw_larger(
        self,
        larger: Settings,
        request: GenerateRequest,
        contexts: Sequence[Context],
        x: np.ndarray,
        on_step: OnStep | None = None,
    ) -> np.ndarray:
        """Take the second pass of hires fix: enlarge the latents x and draw from them.

        `larger` are the settings of this pass: see `hires_settings`. The control images are fitted to its size anew.

        Returns:
            float32 [1, C, h, w] of the larger picture.
        """
        assert larger.hires_upscaler is not None, "resolve fills it in"
        schedule = schedule_of(larger, self._samplers)
        controls = self.embed_controls(larger, [image.array for image in _prepare_controls(larger, request)])
        contexts = with_time_ids(contexts, larger, self.manifest)
        noise = self.initial_noise(larger)
        latents = upscale_latents(x, noise.shape[2], noise.shape[3], larger.hires_upscaler)
        x = add_noise(schedule.rows[0], latents, noise) if schedule.rows else latents
        return self._run(larger, schedule, Conditions(contexts, controls), x, on_step)

    def encode_image(self, image: np.ndarray) -> np.ndarray:
        """Encode a picture, float32 [1, 3, H, W] in -1..1, to latents: float32 [1, C, h, w].

        They are the mode of the VAE's posterior. diffusers samples from the posterior instead; here the seed
        determines nothing but the noise.
        """
        sizes, factor = self.engine.input_sizes(VAE_ENCODER), self.manifest.model.vae_scale_factor
        # [1, 2 C, h, w]: moments; of a tiny autoencoder [1, C, h, w]
        encoded = run_at_any_size(self.engine.vae_encoder, image, sizes, factor, 1)
        check_finite(VAE_ENCODER, encoded, "before step 1")
        mean = encoded[:, : self.manifest.model.latent_channels]
        return (mean.astype(np.float64) * self.manifest.model.scaling_factor).astype(np.float32)

    def decode(self, x: np.ndarray, settings: Settings) -> Image.Image:
        """Decode latents float32 [1, C, h, w] to a picture."""
        sizes, factor = self.engine.input_sizes(VAE_DECODER), self.manifest.model.vae_scale_factor
        image = run_at_any_size(self.engine.vae_decoder, x, sizes, 1, factor)  # [1, 3, H, W]
        check_finite(VAE_DECODER, image, f"after {settings.num_inference_steps} steps")
        return to_picture(image[0].transpose(1, 2, 0).astype(np.float64) / 2 + 0.5)

    def describe(self, settings: Settings) -> dict[str, str]:
        """Return the PNG file's metadata: everything needed to make the picture again, except its input pictures."""
        return to_metadata(settings, self.manifest.model.name, self.engine.bundle.sha256)

    def _run(
        self, settings: Settings, schedule: Schedule, conditions: Conditions, x: np.ndarray, on_step: OnStep | None
    ) -> np.ndarray:
        """Run the denoising loop to its end and return the last sample."""
        steps = denoise(self.engine, settings, schedule, conditions, x)
        step = next(steps, None)
        while step is not None:
            replaced = None if on_step is None else on_step(step)
            x = step.x if replaced is None else like(step.x, replaced)
            try:
                step = steps.send(replaced if replaced is None else x)
            except StopIteration:
                step = None
        return x


def _prepare_controls(settings: Settings, request: GenerateRequest, crop: Crop | None = None) -> list[PreparedImage]:
    """Fit the control images to the size of the drawing."""
    return [prepare_control_image(image, settings.height, settings.width, crop) for image in request.control_images]
