"""Training and drawing make the same array of the same file, whatever kind of file it is."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.images.read import decode_image
from mlc_controlnet.runtime.control_image import prepare_control_image
from mlc_controlnet.train.data import fill50k
from mlc_controlnet.train.data.fill50k_to_shards import fill50k_to_shards
from mlc_controlnet.train.data.rows import RowSet
from mlc_controlnet.train.data.samples import ReadOptions, make_sample
from mlc_controlnet.train.data.shards import ShardSource, read_epoch
from mlc_controlnet.train.image_log import cut_grid, draw_grid
from tests.images import image_files as files
from tests.images.image_files import encode

HEIGHT, WIDTH = 24, 32
OPTIONS = ReadOptions(HEIGHT, WIDTH, 3, None)
SIZES = {"as it is": (24, 32), "smaller": (12, 16), "larger": (96, 128), "portrait": (128, 48), "landscape": (48, 128)}


def palette_with_transparency(height: int, width: int) -> bytes:
    image = files.random_rgb(height, width).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    return encode(image, "PNG", transparency=3)


def several_transparent_colors(height: int, width: int) -> bytes:
    image = files.random_rgb(height, width).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    return encode(image, "PNG", transparency=bytes(range(0, 256, 32)))


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "RGB": lambda h, w: encode(files.random_rgb(h, w), "PNG"),
    "grey": lambda h, w: encode(files.random_rgb(h, w).convert("L"), "PNG"),
    "black and white": lambda h, w: encode(files.random_rgb(h, w).convert("1"), "PNG"),
    "palette": lambda h, w: encode(files.random_rgb(h, w).convert("P"), "PNG"),
    "palette with a transparent color": palette_with_transparency,
    "palette with several transparent colors": several_transparent_colors,
    "RGB with a transparent color": lambda h, w: encode(Image.new("RGB", (w, h)), "PNG", transparency=(0, 0, 0)),
    "grey with a transparent one": lambda h, w: encode(Image.new("L", (w, h), 9), "PNG", transparency=9),
    "RGBA": lambda h, w: encode(files.ring_on_transparent_white(h, w), "PNG"),
    "grey with alpha": lambda h, w: encode(files.ring_on_transparent_white(h, w).convert("LA"), "PNG"),
    "WebP with alpha": lambda h, w: encode(files.ring_on_transparent_white(h, w), "WEBP", lossless=True),
    "16-bit grey": lambda h, w: encode(files.ramp_16_bits(h, w), "PNG"),
    "16-bit grey with a transparent one": lambda h, w: encode(files.ramp_16_bits(h, w), "PNG", transparency=65535),
    "16-bit grey TIFF": lambda h, w: encode(files.ramp_16_bits(h, w), "TIFF"),
    "32-bit grey TIFF": lambda h, w: encode(files.ramp_16_bits(h, w).convert("I"), "TIFF"),
    "CMYK": lambda h, w: encode(files.random_rgb(h, w).convert("CMYK"), "JPEG"),
    "LAB": lambda h, w: encode(Image.new("LAB", (w, h), (120, 40, 80)), "TIFF"),
    "GIF": lambda h, w: encode(files.random_rgb(h, w), "GIF"),
    "BMP": lambda h, w: encode(files.random_rgb(h, w), "BMP"),
    "malformed EXIF tag": lambda h, w: files.with_malformed_tag(files.random_rgb(h, w), 6),
    "long compressed text": lambda h, w: files.with_long_text(files.random_rgb(h, w)),
    **{
        f"{kind}, orientation {orientation}": lambda h, w, k=kind, o=orientation: files.with_orientation(  # type: ignore[misc]
            files.random_rgb(h, w), k, o
        )
        for kind, orientation in itertools.product(("JPEG", "PNG", "WEBP", "TIFF"), (2, 3, 6, 8))
    },
}
REFUSED = {
    "floating-point grey": lambda: encode(Image.new("F", (WIDTH, HEIGHT)), "TIFF"),
    "integers above 16 bits": lambda: encode(Image.new("I", (WIDTH, HEIGHT), 1 << 20), "TIFF"),
    "a file cut off": lambda: encode(files.random_rgb(HEIGHT, WIDTH), "PNG")[:200],
    "a text": lambda: b"no picture",
    "a bomb": lambda: files.png_of_size(20_000, 20_000),
    "a speck": lambda: encode(Image.new("RGB", (4, 3)), "PNG"),
}


def drawn_from(data: bytes) -> np.ndarray:
    return prepare_control_image(decode_image(data, "control image"), HEIGHT, WIDTH).array[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_control_image_is_the_same_array_in_training_and_in_drawing(kind: str, size: str) -> None:
    data = KINDS[kind](*SIZES[size])
    sample = make_sample("k", 0, data, data, "p", OPTIONS)
    assert sample.problem is None
    np.testing.assert_array_equal(sample.control.numpy(), drawn_from(data))
    np.testing.assert_array_equal(sample.pixels.numpy(), 2 * drawn_from(data) - 1)


@pytest.mark.parametrize("kind", ["16-bit grey", "RGBA", "JPEG, orientation 6"])
def test_the_grid_of_a_run_shows_the_control_image_that_would_be_drawn_with(kind: str) -> None:
    data = KINDS[kind](48, 64)
    sample = make_sample("k", 0, data, data, "p", OPTIONS)
    grid = draw_grid([sample], np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    ((shown, _, target),) = cut_grid(grid, HEIGHT, WIDTH)
    wanted = prepare_control_image(decode_image(data), HEIGHT, WIDTH).picture
    np.testing.assert_array_equal(shown, wanted)
    np.testing.assert_array_equal(target, wanted)


@pytest.fixture(scope="module")
def mixed_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample of each kind, the same file as control image and as picture."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "source").mkdir()
    (folder / "target").mkdir()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    fill50k.write(folder, (fill50k.Example(picture, picture, kind) for kind in KINDS))
    for number, make in enumerate(KINDS.values()):
        for part in ("source", "target"):
            (folder / part / f"{number}.png").write_bytes(make(48, 64))
    return folder


def test_a_set_of_every_kind_of_file_is_read_as_it_would_be_drawn(mixed_set: Path) -> None:
    rows = RowSet(mixed_set, fill50k.read_rows(mixed_set), OPTIONS)
    assert len(rows) == len(KINDS)
    for number, make in enumerate(KINDS.values()):
        assert torch.equal(rows[0, number].control, torch.from_numpy(drawn_from(make(48, 64))))


@pytest.mark.parametrize("extension", ["jpg", "image.png"])
def test_shards_hold_what_the_set_holds(mixed_set: Path, tmp_path: Path, extension: str) -> None:
    """Upright, with the grey of 16 bits and the transparency; JPEG loses a little of the pictures, and nothing else."""
    assert fill50k_to_shards(mixed_set, tmp_path, 100, extension, lambda line: None) == (len(KINDS), 1, 0)
    source = ShardSource((f"{tmp_path}/00000.tar",), ("png", extension, "txt"), 0, 1, OPTIONS)
    samples = {sample.prompt: sample for sample in read_epoch(source, 0, 0, 1)}
    assert list(samples) == list(KINDS)
    for kind, make in KINDS.items():
        wanted = drawn_from(make(48, 64))
        np.testing.assert_array_equal(samples[kind].control.numpy(), wanted, err_msg=kind)
        loss = np.abs(samples[kind].pixels.numpy() / 2 + 0.5 - wanted).mean()
        assert loss < (0.03 if extension == "jpg" else 1e-6), kind


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("part", ["picture", "control image"])
def test_what_drawing_refuses_is_a_bad_sample_for_the_same_reason(kind: str, part: str) -> None:
    good, bad = encode(files.random_rgb(HEIGHT, WIDTH), "PNG"), REFUSED[kind]()
    with pytest.raises(UserError) as refused:
        drawn_from(bad)
    files_of = {"picture": (bad, good), "control image": (good, bad)}
    problem = make_sample("k", 0, *files_of[part], "p", OPTIONS).problem
    assert problem == f"{part}: {refused.value.got}, wanted {refused.value.wanted}"
