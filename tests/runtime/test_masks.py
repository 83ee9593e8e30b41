import json

import cv2
import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from mlc_controlnet.runtime.masks import blur_mask, crop_around
from tests.fixtures.write_masks import PATH, content


def mask_with_box(height, width, top, left, bottom, right):
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


@pytest.mark.parametrize("seed", range(200))
def test_the_part_around_a_mask_is_that_of_diffusers(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(8, 300, 2))
    top, bottom = np.sort(rng.choice(height + 1, 2, replace=False))
    left, right = np.sort(rng.choice(width + 1, 2, replace=False))
    mask = mask_with_box(height, width, top, left, bottom, right)
    drawn_height, drawn_width = (8 * int(side) for side in rng.integers(1, 12, 2))
    padding = int(rng.choice([0, 1, 7, 32, 1000]))
    theirs = VaeImageProcessor.get_crop_region(Image.fromarray(mask), drawn_width, drawn_height, pad=padding)
    crop = crop_around(mask, drawn_height, drawn_width, padding)
    assert crop.box == theirs
    assert (crop.picture_height, crop.picture_width) == (height, width)


def test_the_faintest_pixel_is_part_of_the_mask():
    mask = mask_with_box(60, 80, 30, 40, 31, 41) // 255
    assert crop_around(mask, 16, 16, padding=4).box == (36, 26, 45, 35)


def test_a_black_mask_selects_nothing():
    assert crop_around(np.zeros((60, 80), np.uint8), 16, 16, padding=4) is None


BOXES = {"at a border": (20, 0, 45, 30), "in a corner": (50, 70, 60, 80), "in the middle": (30, 38, 33, 41)}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("mask_blur", [0.3, 1, 4, 7.5, 20])
def test_a_mask_is_blurred_as_in_sd_webui(mask_blur, box):
    """sd-webui calls OpenCV once per axis; its 8-bit Gaussian has 8 bits of fraction, ours 52."""
    mask = mask_with_box(60, 80, *box)
    size = 2 * int(2.5 * mask_blur + 0.5) + 1
    theirs = cv2.GaussianBlur(cv2.GaussianBlur(mask, (size, 1), mask_blur), (1, size), mask_blur)
    ours = blur_mask(mask, mask_blur)
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=2)


def test_a_blur_wider_than_the_mask_mirrors_it_again():
    mask = mask_with_box(9, 12, 0, 0, 9, 3)
    theirs = cv2.GaussianBlur(mask.astype(np.float64), (201, 1), 40, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blur_mask(mask, 40), theirs, atol=1)


def test_no_blur_keeps_every_grey():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (blur_mask(mask, 0) == mask).all()
    assert (blur_mask(mask, 0.19) == mask).all()  # a kernel of one tap


def test_a_blurred_edge_has_its_middle_grey_where_the_edge_was():
    mask = mask_with_box(60, 80, 0, 40, 60, 80)
    row = blur_mask(mask, 4)[30].astype(int)
    assert row[39] < 128 <= row[40]
    assert (np.diff(row) >= 0).all() and row[29] == 0 and row[50] == 255


def test_the_browsers_tests_compare_with_what_this_package_computes():
    assert json.loads(PATH.read_text()) == json.loads(json.dumps(content()))
