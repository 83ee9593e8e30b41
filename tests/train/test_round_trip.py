"""From a data set to a picture drawn by the compiled library, on the bundled model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.cli.main import main
from mlc_controlnet.runtime.noise import standard_normal
from mlc_controlnet.train.circles.drawing import IMAGE_SIZE, draw_source, random_circle
from mlc_controlnet.train.circles.recipe import GUIDANCE_SCALE
from tests.conftest import ROOT
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db
from tests.train.conftest import weights_below

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet after a few steps of the preset, by the command line."""
    folder = tmp_path_factory.mktemp("round")
    changes = {
        "data.path": folder / "data",
        "data.cache": folder / "cache",
        "data.generate_circles": 12,
        "data.held_out": 2,
        "trainer.max_steps": 3,
        "trainer.batch_size": 2,
        "optim.lr_warmup_steps": 0,
        "log.images": 2,
        "log.image_every": 3,
        "log.image_steps": 2,
    }
    settings = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    assert main(["train", "--config", "circles", "--output", str(folder / "run"), *settings]) == 0
    return folder / "run" / "controlnet"


def test_the_result_takes_the_place_of_the_bundled_controlnet(trained: Path) -> None:
    checkpoint = load_checkpoint(find_model("circles"), controlnets={"circles": trained})
    loaded = checkpoint.parts["controlnet"].state_dict()
    for name, tensor in weights_below(trained).items():
        assert torch.equal(loaded[name], tensor.half()), name
    assert not torch.equal(
        loaded["controlnet_mid_block.weight"],
        load_checkpoint(find_model("circles")).parts["controlnet"].state_dict()["controlnet_mid_block.weight"],
    )


def test_the_compiled_library_draws_torchs_picture_with_it(
    trained: Path, circles_model: Path, circles_bundle: Bundle, tmp_path: Path
) -> None:
    """And another picture than the bundled ControlNet's, which steers the disc to the outline."""
    from mlc_controlnet.config import BuildConfig, ControlNetOption
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline
    from tests.fixtures.quick_build import build_quickly

    out = tmp_path / "circles-llvm"
    trained_one = (ControlNetOption(str(trained)),)
    build_quickly(BuildConfig("circles", "llvm", ("float32",), out, ROOT / "tuning_db", controlnets=trained_one))
    circle = random_circle(np.random.default_rng(0))
    outline = Image.fromarray(draw_source(circle))
    latents = standard_normal((1, 4, IMAGE_SIZE // 8, IMAGE_SIZE // 8), seed=7)

    def draw(bundle: Bundle | Path) -> np.ndarray:
        pipeline = ControlNetPipeline.from_bundle(bundle)
        return np.asarray(pipeline(circle.prompt, outline, num_inference_steps=4, latents=latents).images[0])

    controlnet = ControlNetModel.from_pretrained(trained).half().float()  # as a bundle stores it
    torchs = StableDiffusionControlNetPipeline.from_pretrained(
        circles_model, controlnet=controlnet, dtype=torch.float32
    )
    torchs.set_progress_bar_config(disable=True)
    wanted = torchs(
        circle.prompt,
        image=outline,
        num_inference_steps=4,
        guidance_scale=GUIDANCE_SCALE,
        latents=torch.from_numpy(latents),
    ).images[0]
    drawn = draw(out)
    assert psnr_db(drawn, np.asarray(wanted)) >= MIN_PSNR_DB
    assert psnr_db(drawn, draw(circles_bundle)) < 20
