"""Train `doodle` from nothing: drawings, autoencoder, latents, the model with its two ControlNets, and its judgement.

    python -m mlc_controlnet train doodle --out runs/doodle

Each stage keeps its result below `--out`, and the long ones keep checkpoints: the same command goes on where it
stopped.
"""

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline
from transformers import CLIPTokenizer

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import whole_file, whole_folder
from mlc_controlnet.train.base import Base
from mlc_controlnet.train.circles.architecture import build_scheduler
from mlc_controlnet.train.circles.loop import Checkpointing, LoopConfig, Stopped, one_cycle
from mlc_controlnet.train.circles.tokenizer import train_tokenizer
from mlc_controlnet.train.doodle import architecture, artworks
from mlc_controlnet.train.doodle.artworks import Split
from mlc_controlnet.train.doodle.autoencoder import DecoderConfig, VaeConfig, reconstruction, train_decoder, train_vae
from mlc_controlnet.train.doodle.cases import Judged, draw_cases, judged_cases
from mlc_controlnet.train.doodle.denoiser import (
    Denoiser,
    DenoiserConfig,
    Samples,
    train_with_colors,
    train_with_scribbles,
)
from mlc_controlnet.train.doodle.judge import Judge, train_judge
from mlc_controlnet.train.doodle.packages import credits_of_drawings
from mlc_controlnet.train.doodle.pictures import Encoded, Pictures, encode
from mlc_controlnet.train.doodle.quality import measure
from mlc_controlnet.train.doodle.redrawn import Sampling, redraw
from mlc_controlnet.train.doodle.sheet import contact_sheet, reconstruction_sheet
from mlc_controlnet.train.memory import keep_freed_memory
from mlc_controlnet.train.model_folder import save_pipeline

Log = Callable[[str], None]
STEPS, GUIDANCE_SCALE = 20, 2.0  # of a judged picture, and recommended with the model
# The finished ControlNet for scribbles gives so many times its residuals, so that users find at conditioning scale 1
# what follows the lines best: trained for a few hours, it underrates them.
LINES_SCALE = 1.8
SHEET_CASES = 64  # half of them unknown things, half unknown pictures of known things

SIZES = architecture.Sizes()
VAE = VaeConfig(
    crops=one_cycle(2400, 1.5e-3, ema_decay=0.99, log_every=50),
    whole=one_cycle(600, 4e-4, ema_decay=0.99, log_every=50),
)
SCRIBBLES = DenoiserConfig(one_cycle(8000, 1.2e-3, beta2=0.99, ema_decay=0.9995, log_every=50))
# A warm restart (arXiv 1608.03983): the same loss, from a lower rate to zero again.
RESTART = DenoiserConfig(one_cycle(5000, 8e-4, beta2=0.99, ema_decay=0.999, log_every=50), control_dropout=0.1)
DECODER = DecoderConfig(one_cycle(1600, 8e-4, ema_decay=0.99, log_every=50))
COLORS = DenoiserConfig(one_cycle(1200, 1e-3, beta2=0.99, ema_decay=0.998, log_every=50))
JUDGE = one_cycle(2400, 1.5e-3, ema_decay=0.995, weight_decay=0.05)


@dataclass(frozen=True)
class Recipe:
    """The data, the model and its stages.

    The numbers of steps fill four hours of two cores with AVX-512; see the package's README for what each stage takes.

    Attributes:
        variants: pictures made of each artwork.
        held_out_things: things that the model never sees in any style.
        held_out_pictures: single artworks of other things that it never sees.
        judge_batch: pictures of a step of the judge.
    """

    seed: int = 0
    variants: int = 8
    held_out_things: int = 100
    held_out_pictures: int = 100
    sizes: architecture.Sizes = SIZES
    vae: VaeConfig = VAE
    scribbles: DenoiserConfig = SCRIBBLES
    restart: DenoiserConfig = RESTART
    decoder: DecoderConfig = DECODER
    colors: DenoiserConfig = COLORS
    judge: LoopConfig = JUDGE
    judge_batch: int = 64

    def shortened(self, share: float) -> "Recipe":
        """Return the recipe with `share` of the steps of every stage, 0 to 1, and at least ten."""

        def short(loop: LoopConfig) -> LoopConfig:
            steps = max(10, round(loop.steps * share))
            horizon = 1 - min(1.0, (1 - loop.optim.ema_decay) / share)  # an average over as large a part of the stage
            optim = replace(loop.optim, lr_warmup_steps=steps // 10, ema_decay=horizon)
            return replace(loop, steps=steps, optim=optim)

        return replace(
            self,
            vae=replace(self.vae, crops=short(self.vae.crops), whole=short(self.vae.whole)),
            scribbles=replace(self.scribbles, loop=short(self.scribbles.loop)),
            restart=replace(self.restart, loop=short(self.restart.loop)),
            decoder=replace(self.decoder, loop=short(self.decoder.loop)),
            colors=replace(self.colors, loop=short(self.colors.loop)),
            judge=short(self.judge),
        )


class Run:
    """A run in the folder `out`, which stages below fill one after the other.

    Args:
        archives: folder with the packages' archives; None: `out`/packages, where npm puts them.
        asked_to_stop: set by another thread or a signal: the run saves its step and raises `Stopped`.

    Raises:
        UserError: `out` has a run of another recipe, or the packages cannot be had.
    """

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        log: Log = print,
        archives: Path | None = None,
        asked_to_stop: threading.Event | None = None,
    ) -> None:
        self.out, self.recipe, self.log = out, recipe, log
        self._stop = threading.Event() if asked_to_stop is None else asked_to_stop
        _check_recipe(out / "recipe.json", recipe)
        keep_freed_memory()
        self.artworks = artworks.prepare(out / "artworks", out / "packages" if archives is None else archives, log)
        self.split: Split = artworks.split(self.artworks, recipe.held_out_things, recipe.held_out_pictures, recipe.seed)
        self.pictures = Pictures(self.artworks, self.split.train, recipe.variants, recipe.seed)
        self.judged: Judged = judged_cases(self.artworks, self.split, recipe.seed)
        log(
            f"{len(self.artworks.artworks)} drawings of {len(self.artworks.things())} things; "
            f"{len(self.split.train)} to train on, {recipe.variants} variants each"
        )

    def train(self) -> StableDiffusionControlNetPipeline:
        """Run every stage that is not finished yet, and write the model to `out`/doodle.

        Raises:
            Stopped: the run was asked to stop.
        """
        vae = self._vae()
        encoded = encode(self.out / "latents", self.pictures, vae, self._check_stop, self.log)
        tokenizer = self._tokenizer(encoded)
        samples = Samples(self.pictures, encoded, _token_ids(tokenizer, encoded.captions), _token_ids(tokenizer, [""]))
        denoiser = self._denoiser(vae, tokenizer, samples)
        vae = self._decoder(vae, denoiser, samples)
        colors = self._colors(denoiser, samples)
        architecture.scale_residuals(denoiser.controlnet, LINES_SCALE)
        # The tokenizer once more as it was trained: it keeps how captions were padded, and would be written with it.
        pipeline = self._pipeline(vae, self._tokenizer(encoded), denoiser)
        self._write_model(pipeline, colors)
        return pipeline

    def judge(self, pipeline: StableDiffusionControlNetPipeline) -> dict[str, Any]:
        """Judge a model on what it was not trained on. Return the figures, and write quality.json and sheet.png.

        Raises:
            Stopped: the run was asked to stop.
        """
        judge = self._judge()
        figures: dict[str, Any] = {}
        shown: list[Any] = []
        for name, cases in (("unknown things", self.judged.things), ("unknown pictures", self.judged.pictures)):
            for scale in (1.0, 0.0):
                self._check_stop()
                drawn = draw_cases(pipeline, cases, STEPS, GUIDANCE_SCALE, scale)
                quality = measure(drawn, cases, judge)
                self.log(f"{len(cases)} {name}, conditioning scale {scale:g}: {quality}")
                figures[f"{name}, scale {scale:g}"] = quality.as_dict()
                if scale:
                    shown += list(zip(cases, drawn, strict=True))[: SHEET_CASES // 2]
        self._save_sheet("sheet.png", [case for case, _ in shown], [picture for _, picture in shown])
        with whole_file(self.out / "quality.json") as partial:
            partial.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        return figures

    def _vae(self) -> AutoencoderKL:
        folder = self.out / "vae"
        if not folder.is_dir():
            torch.manual_seed(self.recipe.seed)
            vae = architecture.build_vae(self.recipe.sizes)

            def checkpointing(name: str) -> Checkpointing:
                return replace(self._checkpointing(name), show=lambda steps: self._show_reconstruction(vae))

            train_vae(vae, self.pictures, self.recipe.vae, checkpointing, self.log)
            _save(folder, vae)
        return self._load_vae(folder)

    def _load_vae(self, folder: Path) -> AutoencoderKL:
        vae = AutoencoderKL.from_pretrained(folder).eval().to(memory_format=torch.channels_last)
        self._show_reconstruction(vae)
        return vae

    def _show_reconstruction(self, vae: AutoencoderKL) -> None:
        pixels = self.judged.pixels()[:32]
        decoded, error = reconstruction(vae, pixels)
        with whole_file(self.out / "reconstruction.png") as partial:
            reconstruction_sheet(pixels[:12], decoded[:12]).save(partial, format="PNG")
        self.log(f"vae: mean absolute error {error:.4f} of 1 on held-out pictures, see reconstruction.png")

    def _tokenizer(self, encoded: Encoded) -> CLIPTokenizer:
        folder = self.out / "tokenizer"
        if not folder.is_dir():
            # Each word once more, also those of held-out things: what it means is still to be learned from pictures.
            words = [text for artwork in self.artworks.artworks for text in (artwork.thing, *artwork.keywords)]
            with whole_folder(folder) as partial:
                train_tokenizer([*encoded.captions, *words], partial, self.recipe.sizes.vocabulary, architecture.TOKENS)
        return CLIPTokenizer.from_pretrained(folder)

    def _denoiser(self, vae: AutoencoderKL, tokenizer: CLIPTokenizer, samples: Samples) -> Denoiser:
        torch.manual_seed(self.recipe.seed)
        text_encoder = architecture.build_text_encoder(self.recipe.sizes, tokenizer)
        unet = architecture.build_unet(self.recipe.sizes)
        denoiser = Denoiser(text_encoder, unet, architecture.build_controlnet(self.recipe.sizes, unet))
        cases = [*self.judged.things[:16], *self.judged.pictures[:16]]
        for name, config in (("scribbles", self.recipe.scribbles), ("restart", self.recipe.restart)):
            folder = self.out / name
            if not folder.is_dir():

                def show(steps: int, name: str = name, denoiser: Denoiser = denoiser) -> None:
                    denoiser.set_training(False)
                    drawn = draw_cases(
                        self._pipeline(vae, tokenizer, denoiser), cases, STEPS, GUIDANCE_SCALE, LINES_SCALE
                    )
                    self._save_sheet(f"{name}-{steps:06d}.png", cases, drawn)
                    denoiser.set_training(True)

                checkpointing = replace(self._checkpointing(name), show=show)
                train_with_scribbles(name, denoiser, build_scheduler(), samples, config, checkpointing, self.log)
                denoiser.save(folder)
            # Read also after training: a run that stops later and goes on has to compute with the same memory order.
            denoiser = Denoiser.load(folder)
        return denoiser

    def _decoder(self, vae: AutoencoderKL, denoiser: Denoiser, samples: Samples) -> AutoencoderKL:
        folder = self.out / "decoder"
        if not folder.is_dir():
            config = self.recipe.decoder
            redrawn = redraw(
                self.out / "redrawn",
                config.redrawn,
                denoiser,
                build_scheduler(),
                samples,
                Sampling(STEPS, config.last, config.guidance_scale, LINES_SCALE),
                self.recipe.seed,
                self._check_stop,
                self.log,
            )
            checkpointing = replace(self._checkpointing("decoder"), show=lambda steps: self._show_reconstruction(vae))
            train_decoder(vae, self.pictures, samples.encoded, redrawn, config, checkpointing, self.log)
            _save(folder, vae)
        return self._load_vae(folder)

    def _colors(self, denoiser: Denoiser, samples: Samples) -> ControlNetModel:
        folder = self.out / "colors"
        if not folder.is_dir():
            torch.manual_seed(self.recipe.seed)
            colors = architecture.build_controlnet(self.recipe.sizes, denoiser.unet)
            checkpointing = self._checkpointing("colors")
            train_with_colors(colors, denoiser, build_scheduler(), samples, self.recipe.colors, checkpointing, self.log)
            _save(folder, colors)
        return ControlNetModel.from_pretrained(folder)

    def _pipeline(
        self, vae: AutoencoderKL, tokenizer: CLIPTokenizer, denoiser: Denoiser
    ) -> StableDiffusionControlNetPipeline:
        base = Base(tokenizer, denoiser.text_encoder, vae, denoiser.unet, build_scheduler())
        return base.pipeline(denoiser.unet, denoiser.controlnet)

    def _judge(self) -> Judge:
        return train_judge(
            self.out / "judge",
            self.artworks,
            self.judged.rows,
            self.recipe.judge,
            self.recipe.judge_batch,
            self._checkpointing("judge"),
            self.log,
        )

    def _write_model(self, pipeline: StableDiffusionControlNetPipeline, colors: ControlNetModel) -> None:
        with whole_folder(self.out / "doodle") as partial:
            both = {"scribble": pipeline.controlnet, "color": colors}
            save_pipeline(pipeline, partial, STEPS, GUIDANCE_SCALE, controlnets=both)
            (partial / "CREDITS.md").write_text(credits_of_drawings(), encoding="utf-8")
        size = sum(file.stat().st_size for file in (self.out / "doodle").rglob("*") if file.is_file())
        self.log(f"{self.out / 'doodle'}: {size / 1e6:.1f} MB in float16")

    def _save_sheet(self, name: str, cases: list[Any], drawn: list[Any]) -> None:
        with whole_file(self.out / name) as partial:
            contact_sheet(cases, drawn).save(partial, format="PNG")
        self.log(f"{self.out / name}")

    def _checkpointing(self, name: str) -> Checkpointing:
        folder = self.out / "checkpoints" / name.replace(" ", "-")
        return Checkpointing(folder, self.recipe.seed, asked_to_stop=self._stop)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped between two parts of a stage; the same command goes on from there")


def echo(recipe: Recipe, log: Log) -> None:
    """Print every value of a recipe."""
    for name, value in asdict(recipe).items():
        log(f"{name}: {value}")


def _check_recipe(file: Path, recipe: Recipe) -> None:
    """Refuse to go on with a run of another recipe; note this one if there is none."""
    ours = json.loads(json.dumps(asdict(recipe)))
    if file.is_file():
        theirs = json.loads(file.read_text(encoding="utf-8"))
        if theirs != ours:
            differing = ", ".join(name for name in ours if ours[name] != theirs.get(name))
            remedy = "repeat the options that the run began with, or choose another --out"
            raise UserError(str(file), f"a run whose {differing} differ", "a run of this recipe", remedy)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as partial:
        partial.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")


def _token_ids(tokenizer: CLIPTokenizer, captions: Iterable[str]) -> torch.Tensor:
    """[N, T] int64, padded to the tokenizer's full length."""
    return tokenizer(
        list(captions), padding="max_length", max_length=architecture.TOKENS, truncation=True, return_tensors="pt"
    ).input_ids


def _save(folder: Path, part: AutoencoderKL | ControlNetModel) -> None:
    with whole_folder(folder) as partial:
        part.save_pretrained(partial)
