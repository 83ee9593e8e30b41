"""A compiled VAE in tiles against diffusers' `enable_tiling`, on random weights.

Where diffusers' tiles are whole, both compute the same. Its last tile in a row or column is cut off at the border, to a
few cells at times, and so sees less of the picture; the compiled VAE's last tile is whole, and nearer to what a VAE
without tiles computes.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from mlc_controlnet.components import VAE_DECODER, VAE_ENCODER
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.tiles import run_at_any_size
from tests.conftest import ROOT
from tests.fixtures.quick_build import build_quickly
from tests.fixtures.random_model import save_random_model

pytestmark = pytest.mark.integration

TILE = 64  # pixels: the compiled size
MIN_PSNR_DB = 80.0
SIZES = [(20, 14), (20, 26), (17, 31)]  # latent cells


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("tiled") / "model")


@pytest.fixture(scope="module")
def vae(model: Path) -> AutoencoderKL:
    vae = AutoencoderKL.from_pretrained(model / "vae").float().eval().requires_grad_(False)
    vae.tile_sample_min_size, vae.tile_latent_min_size = TILE, TILE // 8
    return vae


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    out, components = model.parent / "bundle", (VAE_DECODER, VAE_ENCODER)
    config = BuildConfig(
        str(model), "llvm", ("float32",), out, ROOT / "tuning_db", components=components, height=TILE, width=TILE
    )
    return Engine.load(build_quickly(config))


def psnr_db(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(10 * np.log10(np.ptp(theirs) ** 2 / np.mean((ours.astype(np.float64) - theirs) ** 2)))


def compare(ours: np.ndarray, vae: AutoencoderKL, compute: Callable[[], torch.Tensor], last_tile: int) -> None:
    vae.enable_tiling()
    theirs = compute().numpy()
    vae.disable_tiling()
    whole = compute().numpy()
    inner = np.s_[:, :, :-last_tile, :-last_tile]
    assert ours.shape == theirs.shape
    assert psnr_db(ours[inner], theirs[inner]) >= MIN_PSNR_DB
    assert psnr_db(ours, whole) > psnr_db(theirs, whole)


@pytest.mark.parametrize("cells", SIZES)
def test_decoding_in_tiles_is_that_of_diffusers(vae: AutoencoderKL, engine: Engine, cells: tuple[int, int]) -> None:
    z = torch.randn((1, 4, *cells), generator=torch.Generator().manual_seed(0))
    ours = run_at_any_size(engine.vae_decoder, z.numpy(), engine.input_sizes(VAE_DECODER), 1, 8)
    compare(ours, vae, lambda: vae.decode(z / vae.config.scaling_factor).sample, TILE)


@pytest.mark.parametrize("cells", SIZES)
def test_encoding_in_tiles_is_that_of_diffusers(vae: AutoencoderKL, engine: Engine, cells: tuple[int, int]) -> None:
    noise = torch.randn((1, 3, *cells), generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(noise, scale_factor=8, mode="bicubic").clamp(-1, 1)
    ours = run_at_any_size(engine.vae_encoder, picture.numpy(), engine.input_sizes(VAE_ENCODER), 8, 1)
    compare(ours[:, :4], vae, lambda: vae.encode(picture).latent_dist.mean, TILE // 8)
