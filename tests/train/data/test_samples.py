"""From a file's bytes to tensors: sizes, channels, control images that are drawn."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.train.data.samples import (
    BadSamples,
    Batch,
    ReadOptions,
    bad_sample,
    collate,
    make_sample,
)
from tests.images import image_files

PORTRAIT = ReadOptions(height=24, width=16, hint_channels=3, annotator=None)


def png(picture: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture, mode).save(buffer, "PNG")
    return buffer.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None, :]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return picture


def test_both_pictures_are_scaled_and_cropped_alike() -> None:
    sample = make_sample("k", 0, png(gradient(48, 96)), png(gradient(24, 48)), "p", PORTRAIT)
    assert sample.pixels.shape == sample.control.shape == (3, 24, 16)
    red, green = 255 * sample.control[0], 255 * sample.control[1]
    assert abs(red.mean() - 127.5) < 3 and red.min() > 80 and red.max() < 175  # a third of the width, the middle one
    assert green.min() < 10 and green.max() > 245  # all of the height
    assert (sample.pixels / 2 + 0.5 - sample.control).abs().max() < 0.05


def test_small_pictures_are_scaled_up() -> None:
    sample = make_sample("k", 0, png(gradient(12, 8)), png(gradient(12, 8)), "p", PORTRAIT)
    assert sample.problem is None and sample.pixels.shape == sample.control.shape == (3, 24, 16)


def test_pictures_of_the_right_size_stay_as_they_are() -> None:
    sample = make_sample("k", 0, png(gradient(24, 16)), png(gradient(24, 16)), "p", PORTRAIT)
    np.testing.assert_array_equal(np.rint(255 * sample.control.permute(1, 2, 0).numpy()), gradient(24, 16))
    np.testing.assert_array_equal(np.rint(127.5 * (sample.pixels.permute(1, 2, 0).numpy() + 1)), gradient(24, 16))


@pytest.mark.parametrize(("height", "width"), [(16, 24), (24, 24), (24, 17)])
def test_a_control_image_of_another_aspect_ratio_is_a_bad_sample(height: int, width: int) -> None:
    sample = make_sample("k", 0, png(gradient(24, 16)), png(gradient(height, width)), "p", PORTRAIT)
    wanted = "wanted the same aspect ratio"
    assert sample.problem == f"control image: {width}x{height} for a picture of 16x24, {wanted}"


@pytest.mark.parametrize(("height", "width"), [(12, 8), (48, 32), (101, 67), (768, 512)])
def test_a_control_image_whose_sides_were_rounded_is_a_good_sample(height: int, width: int) -> None:
    assert make_sample("k", 0, png(gradient(24, 16)), png(gradient(height, width)), "p", PORTRAIT).problem is None


def test_a_picture_on_its_side_needs_a_control_image_on_its_side() -> None:
    lying = image_files.with_orientation(Image.fromarray(gradient(16, 24)), "PNG", 6)
    sample = make_sample("k", 0, lying, lying, "p", PORTRAIT)
    turned = np.rot90(gradient(16, 24), -1)
    np.testing.assert_array_equal(np.rint(255 * sample.control.permute(1, 2, 0).numpy()), turned)
    np.testing.assert_array_equal(np.rint(127.5 * (sample.pixels.permute(1, 2, 0).numpy() + 1)), turned)
    problem = make_sample("k", 0, lying, png(gradient(16, 24)), "p", PORTRAIT).problem
    assert problem == "control image: 24x16 for a picture of 16x24, wanted the same aspect ratio"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_control_image_has_the_channels_asked_for(channels: int) -> None:
    options = ReadOptions(24, 16, channels, None)
    sample = make_sample("k", 0, png(gradient(24, 16)), png(gradient(24, 16)), "p", options)
    assert sample.control.shape == (channels, 24, 16) and sample.pixels.shape == (3, 24, 16)
    assert sample.control.min() >= 0 and sample.control.max() <= 1
    assert sample.pixels.min() == -1 and sample.pixels.max() == 1


def test_canny_draws_white_lines_where_the_picture_has_edges() -> None:
    picture = np.zeros((24, 16, 3), np.uint8)
    picture[:, 8:] = 255
    options = ReadOptions(24, 16, 3, "canny")
    sample = make_sample("k", 0, png(picture), None, "p", options)
    lines = sample.control[0]
    assert sample.problem is None and set(lines.unique().tolist()) == {0.0, 1.0}
    assert lines[:, 6:10].amax(dim=1).all() and not lines[:, :6].any() and not lines[:, 10:].any()


def test_canny_finds_the_edges_of_the_upright_picture() -> None:
    options = ReadOptions(24, 16, 1, "canny")
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[6:, 4:] = 255
    lying = image_files.with_orientation(Image.fromarray(np.rot90(upright)), "PNG", 6)
    first, second = (make_sample("k", 0, data, None, "p", options) for data in (png(upright), lying))
    assert first.control.any() and torch.equal(first.control, second.control)
    assert torch.equal(first.pixels, second.pixels)


def test_a_bad_sample_has_no_weight_and_a_reason() -> None:
    good = make_sample("a", 0, png(gradient(24, 16)), png(gradient(24, 16)), "p", PORTRAIT)
    no_control = make_sample("b", 0, png(gradient(24, 16)), None, "p", PORTRAIT)
    no_picture = make_sample("c", 0, b"no picture", png(gradient(24, 16)), "p", PORTRAIT)
    cut = make_sample("d", 0, png(gradient(24, 16))[:60], png(gradient(24, 16)), "p", PORTRAIT)
    batch = collate([good, no_control, no_picture, cut])
    assert batch.weight.tolist() == [1, 0, 0, 0]
    not_an_image = "c: picture: a file that is not an image, wanted a PNG, JPEG, WebP, GIF, BMP or TIFF file"
    assert batch.problems[:2] == ["b: no control image", not_an_image]
    assert batch.problems[2].startswith("d: picture: a damaged image")


def test_a_bad_sample_counts_once_however_often_it_is_met() -> None:
    """A shard over http that is not there ends sometimes in an empty file and sometimes in curl's exit code."""

    def batch(**problems: str) -> Batch:
        return collate([bad_sample(key, 0, problem, PORTRAIT) for key, problem in problems.items()])

    bad = BadSamples(limit=1)
    assert bad.add(batch(a="x", b="y")) == ["a: x", "b: y"]
    assert bad.add(batch(a="x")) == bad.add(batch(a="z")) == [] and bad.too_many
    assert "got 2 samples" in str(bad.error(None)) and "there is no checkpoint yet" in str(bad.error(None))
