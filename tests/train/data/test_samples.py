"""From a file's bytes to tensors: sizes, channels, control images that are drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.train.data.samples import (
    BadSamples,
    Batch,
    ReadOptions,
    bad_sample,
    collate,
    make_sample,
    open_picture,
)

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


def test_a_wide_picture_is_scaled_to_the_height_and_cropped_at_the_middle() -> None:
    picture = open_picture(png(gradient(48, 96)), 3, PORTRAIT)
    assert picture.shape == (24, 16, 3)
    red, green = picture[..., 0], picture[..., 1]
    assert abs(red.mean() - 127.5) < 3 and red.min() > 80 and red.max() < 175  # a third of the width, the middle one
    assert green.min() < 10 and green.max() > 245  # all of the height


def test_a_small_picture_is_scaled_up() -> None:
    assert open_picture(png(gradient(6, 4)), 3, PORTRAIT).shape == (24, 16, 3)


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = gradient(24, 16)
    np.testing.assert_array_equal(open_picture(png(picture), 3, PORTRAIT), picture)


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


def test_a_bad_sample_has_no_weight_and_a_reason() -> None:
    good = make_sample("a", 0, png(gradient(24, 16)), png(gradient(24, 16)), "p", PORTRAIT)
    no_control = make_sample("b", 0, png(gradient(24, 16)), None, "p", PORTRAIT)
    no_picture = make_sample("c", 0, b"no picture", png(gradient(24, 16)), "p", PORTRAIT)
    cut = make_sample("d", 0, png(gradient(24, 16))[:60], png(gradient(24, 16)), "p", PORTRAIT)
    batch = collate([good, no_control, no_picture, cut])
    assert batch.weight.tolist() == [1, 0, 0, 0]
    assert batch.problems[:2] == ["b: no control image", "c: a picture that can not be decoded"]
    assert batch.problems[2].startswith("d: a picture that can not be decoded")


def test_a_bad_sample_counts_once_however_often_it_is_met() -> None:
    """A shard over http that is not there ends sometimes in an empty file and sometimes in curl's exit code."""

    def batch(**problems: str) -> Batch:
        return collate([bad_sample(key, 0, problem, PORTRAIT) for key, problem in problems.items()])

    bad = BadSamples(limit=1)
    assert bad.add(batch(a="x", b="y")) == ["a: x", "b: y"]
    assert bad.add(batch(a="x")) == bad.add(batch(a="z")) == [] and bad.too_many
    assert "got 2 samples" in str(bad.error(None)) and "there is no checkpoint yet" in str(bad.error(None))
