"""From a data set to a picture drawn by the compiled library, on the bundled model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.cli.main import main
from mlc_controlnet.train.circles.drawing import IMAGE_SIZE, draw_source, random_circle
from tests.conftest import ROOT
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
    checkpoint = load_checkpoint(find_model("circles"), controlnet=trained)
    loaded = checkpoint.parts["controlnet"].state_dict()
    for name, tensor in weights_below(trained).items():
        assert torch.equal(loaded[name], tensor.half()), name
    assert not torch.equal(
        loaded["controlnet_mid_block.weight"],
        load_checkpoint(find_model("circles")).parts["controlnet"].state_dict()["controlnet_mid_block.weight"],
    )


def test_the_compiled_library_draws_with_it(trained: Path, tmp_path: Path) -> None:
    from mlc_controlnet.build import build
    from mlc_controlnet.config import BuildConfig
    from mlc_controlnet.runtime.pipeline import ControlNetPipeline

    out = tmp_path / "circles-llvm"
    build(
        BuildConfig(
            model="circles",
            target="llvm",
            dtypes=("float32",),
            out=out,
            tuning_db=ROOT / "tuning_db",
            controlnet=str(trained),
        )
    )
    circle = random_circle(np.random.default_rng(0))
    picture = ControlNetPipeline.from_bundle(out)(
        circle.prompt, Image.fromarray(draw_source(circle)), num_inference_steps=4, seed=7
    ).images[0]
    assert picture.size == (IMAGE_SIZE, IMAGE_SIZE) and np.asarray(picture).std() > 10
