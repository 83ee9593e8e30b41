"""Every feature of a drawing with every other one, against diffusers' pipelines, on models of random weights.

The cases cover all pairs of the factors' values. A dozen more are drawn at random in each run.
"""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.build import build
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.diffusers_pictures import DiffusersPictures, Drawing
from tests.fixtures.random_model import save_random_model
from tests.runtime.pairwise import Case, covering_set, random_cases
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

HEIGHT, WIDTH, STEPS = 64, 96, 5
SCALES = (6.0, 9.0)  # what a ControlNet of random weights gives is small
FACTORS: dict[str, list[Any]] = {
    "sampler": [
        "ddim", "ddpm", "pndm", "lms", "euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde",
        "dpmpp_2s", "dpmpp_2s_sde", "unipc", "deis", "lcm", "tcd", "ddim with eta",
    ],
    "guidance_scale": [1.0, 5.0],
    "controlnets": [1, 2],
    "mode": ["balanced", "guess", "prompt", "control"],
    "window": [(0.0, 1.0), (0.2, 0.7)],
    "task": ["txt2img", "img2img", "inpaint 4", "inpaint 9"],
    "weights": [False, True],
}  # fmt: skip
RUN_SEED = secrets.randbelow(10**6)
CASES = [*covering_set(FACTORS), *random_cases(FACTORS, 12, RUN_SEED)]
PLAIN = (("gold circle with navy background", 1.0),)
WEIGHTED = (("gold", 1.3), ("circle with", 1.0), ("navy", 1 / 1.1), ("background", 1.0))
WRITTEN = {PLAIN: "gold circle with navy background", WEIGHTED: "(gold:1.3) circle with [navy] background"}
NEGATIVE = (("red circle with white background", 1.0),)


def random_picture(seed: int) -> Image.Image:
    """Blocks of 8 x 8 pixels, so that a picture survives its latents."""
    blocks = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    return Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


class Contest:
    """One model of random weights with two ControlNets, as a bundle and with diffusers."""

    def __init__(self, folder: Path, sample_channels: int) -> None:
        model = save_random_model(folder / "model", sample_channels, more_controlnets=({},))
        config = BuildConfig(
            str(model), "llvm", ("float32",), folder / "bundle", ROOT / "tuning_db", height=HEIGHT, width=WIDTH
        )
        self.pipeline = ControlNetPipeline.from_bundle(build(config))
        self.names = [controlnet.name for controlnet in self.pipeline.manifest.controlnets]
        self.diffusers = DiffusersPictures(model, sorted(model.glob("controlnet*")))

    def decibels(self, drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> tuple[float, np.ndarray]:
        wanted = self.diffusers.draw(drawing, monkeypatch)
        return psnr_db(self.draw(drawing), wanted), wanted

    def draw(self, drawing: Drawing) -> np.ndarray:
        count = len(drawing.control_images)
        output = self.pipeline(
            WRITTEN[drawing.prompt],
            image=drawing.image,
            control_image=list(drawing.control_images),
            mask_image=drawing.mask_image,
            negative_prompt=NEGATIVE[0][0],
            num_inference_steps=drawing.steps,
            guidance_scale=drawing.guidance_scale,
            controlnets=self.names[:count],
            controlnet_conditioning_scale=list(drawing.scales),
            control_guidance_start=drawing.start,
            control_guidance_end=drawing.end,
            control_mode="balanced" if drawing.mode == "guess" else drawing.mode,
            guess_mode=drawing.mode == "guess",
            sampler=drawing.sampler,
            eta=drawing.eta,
            strength=drawing.strength,
            seed=drawing.seed,
            apply_overlay=False,
        )
        return np.asarray(output.images[0])


@pytest.fixture(scope="module")
def four_channels(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    return Contest(tmp_path_factory.mktemp("four"), 4)


@pytest.fixture(scope="module")
def nine_channels(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    return Contest(tmp_path_factory.mktemp("nine"), 9)


def drawing_of(case: Case, seed: int) -> Drawing:
    task, _, channels = case["task"].partition(" ")
    sampler, _, with_eta = case["sampler"].partition(" with ")
    mask = Image.new("L", (WIDTH, HEIGHT), 0)
    mask.paste(255, (16, 8, 64, 56))
    return Drawing(
        task=task,
        sampler=sampler,
        mode=case["mode"],
        prompt=WEIGHTED if case["weights"] else PLAIN,
        negative_prompt=NEGATIVE,
        control_images=[random_picture(seed + i) for i in range(case["controlnets"])],
        scales=SCALES[: case["controlnets"]],
        start=case["window"][0],
        end=case["window"][1],
        guidance_scale=case["guidance_scale"],
        steps=STEPS,
        seed=seed,
        strength=1.0 if task == "txt2img" else 0.8,
        eta=0.6 if with_eta else 0.0,
        image=None if task == "txt2img" else random_picture(seed + 7),
        mask_image=mask if channels else None,
    )


@pytest.mark.parametrize(
    ("index", "case"), enumerate(CASES), ids=lambda value: str(value) if isinstance(value, int) else ""
)
def test_a_picture_is_diffusers_own(
    index: int, case: Case, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = request.getfixturevalue("nine_channels" if case["task"] == "inpaint 9" else "four_channels")
    drawing = drawing_of(case, seed=100 + index)
    decibels, wanted = contest.decibels(drawing, monkeypatch)
    assert wanted.std() > 10  # not a flat picture
    assert decibels >= MIN_PSNR_DB, f"{case}, random cases of seed {RUN_SEED}"
