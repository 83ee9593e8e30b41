import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from mlc_controlnet.runtime.crop import Crop, cut_out, put_back

HEIGHT, WIDTH = 16, 24
CROPS = {
    "as wide as high": Crop(10, 5, 40, 25, 60, 80),
    "too high": Crop(10, 5, 21, 55, 60, 80),
    "too wide": Crop(3, 5, 78, 26, 60, 80),
    "by a rounding": Crop(3, 5, 34, 26, 60, 80),
    "two rows": Crop(3, 5, 33, 7, 60, 80),
    "one column": Crop(3, 10, 4, 20, 60, 80),
}


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8))


def box_processor(mode):
    return VaeImageProcessor(do_normalize=False, do_convert_grayscale=mode == "L")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_a_part_is_scaled_and_its_edges_are_extended_as_in_diffusers(photo, crop, mode):
    picture = photo.convert(mode)
    theirs = box_processor(mode).preprocess(
        picture, height=HEIGHT, width=WIDTH, crops_coords=crop.box, resize_mode="fill"
    )
    ours = np.atleast_3d(np.asarray(cut_out(picture, crop, HEIGHT, WIDTH)))
    assert ours.shape[:2] == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(ours, (255 * theirs[0].permute(1, 2, 0)).round().to(torch.uint8).numpy())


def test_a_sliver_becomes_one_row_at_least(photo):
    """diffusers has no picture for it."""
    drawn = cut_out(photo, Crop(3, 5, 63, 6, 60, 80), HEIGHT, WIDTH)
    assert drawn.size == (WIDTH, HEIGHT)
    assert (np.asarray(drawn) == np.asarray(drawn)[:1]).all()


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_a_part_goes_back_as_in_diffusers(photo, crop):
    drawn = photo.resize((WIDTH, HEIGHT))
    theirs = VaeImageProcessor().resize(drawn, crop.height, crop.width, resize_mode="crop")
    np.testing.assert_array_equal(put_back(drawn, crop), theirs)


def test_the_way_there_and_back_keeps_a_smooth_part():
    across, down = np.meshgrid(np.linspace(0, 255, 80), np.linspace(0, 255, 60))
    picture = Image.fromarray(np.stack([across, down, 255 - across], axis=2).astype(np.uint8))
    crop = Crop(20, 10, 56, 34, 60, 80)
    back = np.asarray(put_back(cut_out(picture, crop, 2 * HEIGHT, 2 * WIDTH), crop), int)
    assert np.abs(back - np.asarray(picture.crop(crop.box), int)).max() <= 6
