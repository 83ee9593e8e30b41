"""Train `circles` from nothing: data, autoencoder, text to image, ControlNet, and the measure of the result.

    python -m mlc_controlnet train circles --out runs/circles

Each stage saves its result below `--out`, and the running one its step every few minutes, and when it is asked to stop.
If the command is started again, it goes on from there.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from mlc_controlnet.files import whole_folder
from mlc_controlnet.train.base import Base
from mlc_controlnet.train.circles import architecture
from mlc_controlnet.train.circles.colors import COLORS
from mlc_controlnet.train.circles.controlnet import train_controlnet
from mlc_controlnet.train.circles.data_set import generate_circles
from mlc_controlnet.train.circles.drawing import Circle, draw_source, random_circle
from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, Stopped, one_cycle
from mlc_controlnet.train.circles.quality import Quality, measure
from mlc_controlnet.train.circles.text_to_image import train_text_to_image
from mlc_controlnet.train.circles.tokenizer import train_tokenizer
from mlc_controlnet.train.circles.vae import latent_scale, train_vae
from mlc_controlnet.train.data import fill50k
from mlc_controlnet.train.model_folder import save_pipeline

GUIDANCE_SCALE = 2.0  # what the model card recommends; flat colours need little
VAE_SMALL = one_cycle(1600, 1e-3)  # on pictures of half the size
VAE_FULL = one_cycle(300, 5e-4, ema_decay=0.99)
TEXT_TO_IMAGE = one_cycle(6000, 1.5e-3, beta2=0.99, ema_decay=0.999)
CONTROLNET = one_cycle(9000, 1e-3, beta2=0.99, ema_decay=0.999)


@dataclass(frozen=True)
class Recipe:
    """The training of the bundled model: its data and its three stages."""

    seed: int = 0
    examples: int = 6000
    batch: int = 16
    prompt_dropout: float = 0.1  # share of empty prompts, for classifier-free guidance (arXiv 2207.12598)
    vae_small: LoopConfig = VAE_SMALL
    vae_full: LoopConfig = VAE_FULL
    base: LoopConfig = TEXT_TO_IMAGE
    controlnet: LoopConfig = CONTROLNET


@dataclass(frozen=True)
class TrainingSet:
    """The data of the second and the third stage.

    Attributes:
        sources: the outlines.  # [N, H, W, 3] uint8
        latents: scaled latent means of the targets.  # [N, 4, h, w]
        token_ids: the prompts.  # [N, T] int64
        empty: the empty prompt.  # [1, T] int64
    """

    sources: np.ndarray
    latents: torch.Tensor
    token_ids: torch.Tensor
    empty: torch.Tensor

    def draw(self, recipe: Recipe, pick: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw rows [B] and their token ids [B, T]; some prompts are replaced by the empty one."""
        rows = torch.randint(0, len(self.latents), (recipe.batch,), generator=pick)
        dropped = torch.rand(recipe.batch, 1, generator=pick) < recipe.prompt_dropout
        return rows, torch.where(dropped, self.empty, self.token_ids[rows])


class _Progress:
    """What the stages of one run share: where they keep their steps, when they stop, and whom they tell.

    Args:
        out: the run's folder.
        asked_to_stop: set by another thread or a signal.
    """

    def __init__(self, out: Path, asked_to_stop: threading.Event, log: Callable[[str], None]) -> None:
        self._checkpoints, self._stop, self.log = out / "checkpoints", asked_to_stop, log

    def checkpointing(self, name: str, pick: torch.Generator) -> Checkpointing:
        """Return how a part of a stage keeps its steps. `pick` and torch itself draw its random numbers."""
        generators = (torch.default_generator, pick)
        return Checkpointing(self._checkpoints / name, generators=generators, asked_to_stop=self._stop)

    def check_stop(self) -> None:
        """Raise `Stopped` if the run was asked to."""
        if self._stop.is_set():
            raise Stopped("stopped between two stages; the same command goes on from there")

    def finish(self, *names: str) -> None:
        """Delete the steps of a stage whose result is written."""
        for name in names:
            shutil.rmtree(self._checkpoints / name, ignore_errors=True)


def train_circles(
    out: Path,
    recipe: Recipe,
    log: Callable[[str], None] = print,
    asked_to_stop: threading.Event | None = None,
) -> StableDiffusionControlNetPipeline:
    """Run every stage that `out` does not hold yet and return the finished pipeline, in float32.

    Args:
        asked_to_stop: set by another thread or a signal.

    Raises:
        Stopped: the run was asked to stop; its step is saved, and the next call goes on from there.
    """
    log(f"recipe: {asdict(recipe)}")
    torch.manual_seed(recipe.seed)
    progress = _Progress(out, threading.Event() if asked_to_stop is None else asked_to_stop, log)
    data = write_data(out / "data", recipe, log)
    tokenizer = _tokenizer(out / "tokenizer", data)
    vae = _vae(out / "vae", data, recipe, progress)
    log(f"latents: {len(data)} pictures are encoded")
    training_set = TrainingSet(
        sources=np.stack([e.source for e in data]),
        latents=_latents(vae, data, progress),
        token_ids=_token_ids(tokenizer, [e.prompt for e in data]),
        empty=_token_ids(tokenizer, [""]),
    )
    text_encoder, unet = _base(out, tokenizer, training_set, recipe, progress)
    controlnet = _controlnet(out / "controlnet", unet, text_encoder, training_set, recipe, progress)
    return Base(tokenizer, text_encoder, vae, unet, architecture.build_scheduler()).pipeline(unet, controlnet)


def write_model(pipeline: StableDiffusionControlNetPipeline, folder: Path) -> None:
    """Write the finished model as in `mlc_controlnet/models/circles`: diffusers' layout in float16.

    Two more files list the colours that the model knows and the settings that it recommends.
    """
    with whole_folder(folder) as partial:
        save_pipeline(pipeline, partial, steps=20, guidance_scale=GUIDANCE_SCALE)
        (partial / "colors.json").write_text(json.dumps(COLORS, indent=1) + "\n", encoding="utf-8")


def load_model(folder: Path) -> StableDiffusionControlNetPipeline:
    """Read the model that `write_model` wrote, in float32."""
    return StableDiffusionControlNetPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )


def unseen_circles(count: int) -> list[Circle]:
    """Return the circles that quality is measured on. No training stage uses their stream of random numbers."""
    rng = np.random.default_rng([2026, 64])
    return [random_circle(rng) for _ in range(count)]


def evaluate(
    pipeline: StableDiffusionControlNetPipeline,
    circles: list[Circle],
    conditioning_scale: float = 1.0,
    steps: int = 20,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int = 0,
) -> tuple[Quality, list[np.ndarray]]:
    """Draw every circle with diffusers' own pipeline and judge the pictures."""
    pictures: list[np.ndarray] = []
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(circles), 16):
        batch = circles[start : start + 16]
        result = pipeline(
            prompt=[c.prompt for c in batch],
            image=[Image.fromarray(draw_source(c)) for c in batch],
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            controlnet_conditioning_scale=conditioning_scale,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))],
        )
        pictures += [np.asarray(image) for image in result.images]
    return measure(pictures, circles), pictures


def write_data(directory: Path, recipe: Recipe, log: Callable[[str], None] = print) -> list[fill50k.Example]:
    """Read the data set in `directory`, which is generated if there is none."""
    generate_circles(directory, recipe.examples, recipe.seed, log)
    return fill50k.read(directory)


def _tokenizer(directory: Path, data: list[fill50k.Example]) -> CLIPTokenizer:
    if (directory / "tokenizer_config.json").is_file():
        return CLIPTokenizer.from_pretrained(directory)
    return train_tokenizer([e.prompt for e in data], directory)


def _vae(directory: Path, data: list[fill50k.Example], recipe: Recipe, progress: _Progress) -> AutoencoderKL:
    if directory.is_dir():
        return AutoencoderKL.from_pretrained(directory)
    pictures = _pictures(np.stack([e.target for e in data]))
    vae = architecture.build_vae()
    pick = torch.Generator().manual_seed(recipe.seed)

    def batch(bank: torch.Tensor, size: int) -> torch.Tensor:
        return bank[torch.randint(0, len(bank), (size,), generator=pick)]

    small = F.avg_pool2d(pictures, 2)
    started = time.monotonic()
    log = progress.log
    for name, next_pictures, config in (
        ("vae-small", lambda: batch(small, recipe.batch), recipe.vae_small),
        ("vae-full", lambda: batch(pictures, recipe.batch // 2), recipe.vae_full),
    ):
        train_vae(vae, next_pictures, config, log, progress.checkpointing(name, pick))
    vae.register_to_config(scaling_factor=round(latent_scale(vae, batch(pictures, 256)), 5))
    with torch.no_grad():
        held_out = pictures[-256:]
        error = (vae.decode(vae.encode(held_out).latent_dist.mean).sample - held_out).abs().mean().item()
    minutes = (time.monotonic() - started) / 60
    log(f"vae: mean absolute error {error:.4f}, scaling factor {vae.config.scaling_factor}, {minutes:.1f} min")
    _save(vae, directory)
    progress.finish("vae-small", "vae-full")
    return vae


@torch.no_grad()
def _latents(vae: AutoencoderKL, data: list[fill50k.Example], progress: _Progress) -> torch.Tensor:
    """Compute the scaled latent means of every target, [N, 4, h, w]."""
    chunks = []
    for start in range(0, len(data), 64):
        progress.check_stop()
        pictures = _pictures(np.stack([e.target for e in data[start : start + 64]]))
        chunks.append(vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(chunks)


def _base(
    out: Path, tokenizer: CLIPTokenizer, training_set: TrainingSet, recipe: Recipe, progress: _Progress
) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    if (out / "unet").is_dir():
        return CLIPTextModel.from_pretrained(out / "text_encoder"), UNet2DConditionModel.from_pretrained(out / "unet")
    text_encoder, unet = architecture.build_text_encoder(tokenizer), architecture.build_unet()
    pick = torch.Generator().manual_seed(recipe.seed + 1)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor]:
        rows, token_ids = training_set.draw(recipe, pick)
        return training_set.latents[rows], token_ids

    scheduler, checkpointing = architecture.build_scheduler(), progress.checkpointing("text-to-image", pick)
    train_text_to_image(unet, text_encoder, scheduler, next_batch, recipe.base, progress.log, checkpointing)
    _save(text_encoder, out / "text_encoder")
    _save(unet, out / "unet")
    progress.finish("text-to-image")
    return text_encoder, unet


def _controlnet(
    directory: Path,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    training_set: TrainingSet,
    recipe: Recipe,
    progress: _Progress,
) -> ControlNetModel:
    if directory.is_dir():
        return ControlNetModel.from_pretrained(directory)
    controlnet = architecture.build_controlnet(unet)
    pick = torch.Generator().manual_seed(recipe.seed + 2)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, token_ids = training_set.draw(recipe, pick)
        with torch.no_grad():
            context = text_encoder(token_ids).last_hidden_state
        sources = torch.from_numpy(training_set.sources[rows.numpy()])
        return training_set.latents[rows], context, sources.permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]

    scheduler, checkpointing = architecture.build_scheduler(), progress.checkpointing("controlnet", pick)
    train_controlnet(controlnet, unet, scheduler, next_batch, recipe.controlnet, progress.log, checkpointing)
    _save(controlnet, directory)
    progress.finish("controlnet")
    return controlnet


def _pictures(images: np.ndarray) -> torch.Tensor:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32 in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def _token_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> torch.Tensor:
    """[N, T] int64, padded to the tokenizer's full length."""
    return tokenizer(
        prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids


def _save(model: AutoencoderKL | UNet2DConditionModel | ControlNetModel | CLIPTextModel, directory: Path) -> None:
    """Write the folder whole or not at all: a folder that exists is a finished stage."""
    with whole_folder(directory) as partial:
        model.save_pretrained(partial)
