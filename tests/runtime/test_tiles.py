import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from mlc_controlnet.runtime.tiles import Tile, run_at_any_size, run_in_tiles, tile_axis

TILE, CELL = 16, 8  # latent cells; pixels


@pytest.fixture(scope="module")
def vae():
    """Its networks are replaced in each test: only the tiling is diffusers'."""
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=TILE * CELL)
    vae.post_quant_conv = vae.quant_conv = torch.nn.Identity()
    assert vae.tile_latent_min_size == TILE
    return vae


class Upsampler(torch.nn.Module):
    """Each cell becomes CELL x CELL equal pixels, plus a pattern of the tile that shows which tile a pixel is from."""

    def __init__(self, pattern):
        super().__init__()
        self.pattern = torch.from_numpy(pattern)

    def forward(self, z):
        pixels = z[:, :3].repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)
        return pixels + self.pattern[:, :, : pixels.shape[2], : pixels.shape[3]]


class Downsampler(Upsampler):
    def forward(self, x):
        cells = x[:, :, ::CELL, ::CELL]
        return cells + self.pattern[:, :, : cells.shape[2], : cells.shape[3]]


def call(module):
    return lambda x: module(torch.from_numpy(x)).numpy()


@pytest.fixture(params=[0.0, 1.0], ids=["equal tiles", "tiles that differ"])
def pattern_scale(request):
    return request.param


def test_decoding_in_tiles_is_that_of_diffusers(vae, pattern_scale):
    rng = np.random.default_rng(1)
    pattern = (pattern_scale * rng.standard_normal((1, 3, TILE * CELL, TILE * CELL))).astype(np.float32)
    z = rng.standard_normal((1, 4, 45, 57)).astype(np.float32)
    vae.decoder = Upsampler(pattern)
    theirs = vae.tiled_decode(torch.from_numpy(z)).sample.numpy()
    ours = run_in_tiles(call(vae.decoder), z, (TILE, TILE), 1, CELL)
    assert ours.shape == theirs.shape
    # Where diffusers cuts the last tiles off, ours are moved: their patterns differ.
    inner = np.s_[:, :, : 36 * CELL, : 48 * CELL] if pattern_scale else np.s_[:]
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_encoding_in_tiles_is_that_of_diffusers(vae, pattern_scale):
    rng = np.random.default_rng(1)
    pattern = (pattern_scale * rng.standard_normal((1, 3, TILE, TILE))).astype(np.float32)
    x = rng.standard_normal((1, 3, 45 * CELL, 57 * CELL)).astype(np.float32)
    vae.encoder = Downsampler(pattern)
    theirs = vae._tiled_encode(torch.from_numpy(x)).numpy()
    ours = run_in_tiles(call(vae.encoder), x, (TILE, TILE), CELL, 1)
    assert ours.shape == theirs.shape
    inner = np.s_[:, :, :36, :48] if pattern_scale else np.s_[:]
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=1e-5)


def test_the_last_tile_moves_inwards_and_ends_at_the_border():
    assert tile_axis(16, 16) == [Tile(0, 0)]
    assert tile_axis(17, 16) == [Tile(0, 0), Tile(1, 12)]
    assert tile_axis(28, 16) == [Tile(0, 0), Tile(12, 12)]
    assert tile_axis(29, 16) == [Tile(0, 0), Tile(12, 12), Tile(13, 24)]


def test_tiles_fade_into_each_other_in_a_straight_line():
    """The k-th tile is k everywhere: two columns of three rows, of which the last lies four cells further in."""
    values = iter(range(6))
    result = run_in_tiles(lambda x: np.full_like(x, next(values)), np.zeros((1, 1, 30, 40), np.float32), (16, 32), 1, 1)
    assert result.shape == (1, 1, 30, 40)
    row, column = result[0, 0, 0], result[0, 0, :, 0]
    np.testing.assert_allclose(row[:24], 0)
    np.testing.assert_allclose(row[24:32], np.arange(8) / 8, atol=1e-6)
    np.testing.assert_allclose(row[32:], 1)
    np.testing.assert_allclose(column[12:16], 2 * np.arange(4) / 4, atol=1e-6)
    np.testing.assert_allclose(column[24:28], 2 + 2 * np.arange(4) / 4, atol=1e-6)
    np.testing.assert_allclose(column[28:], 4)


def test_every_tile_is_full():
    shapes = []
    run_in_tiles(lambda x: shapes.append(x.shape) or x, np.zeros((1, 4, 21, 35), np.float32), (8, 12), 1, 1)
    assert set(shapes) == {(1, 4, 8, 12)}


def test_a_compiled_size_runs_whole_and_any_other_in_tiles_of_the_largest_that_fits():
    seen = []

    def component(x):
        seen.append(x.shape[2:])
        return x.repeat(2, axis=2).repeat(2, axis=3)

    x = np.arange(6 * 10, dtype=np.float32).reshape(1, 1, 6, 10)
    sizes = [(4, 4), (4, 8), (8, 4), (6, 10)]
    np.testing.assert_array_equal(run_at_any_size(component, x, sizes, 1, 2), component(x))
    assert set(seen) == {(6, 10)}
    seen.clear()
    np.testing.assert_allclose(run_at_any_size(component, x, sizes[:3], 1, 2), component(x), rtol=1e-6)
    assert set(seen[:-1]) == {(4, 8)}
