import numpy as np
import pytest
from PIL import Image, ImageChops, ImageFilter

from mlc_controlnet.runtime.inpainting import prepare_inpainting
from mlc_controlnet.runtime.mask_options import FILL, LATENT_NOISE, LATENT_NOTHING, MASKED_CONTENTS, ORIGINAL
from mlc_controlnet.runtime.masked_content import LAYERS, fill, gaussian, mask_latents
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

SIZE = 96, 64


def photo(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    colors = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)


def mask(blur: float = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    painted = Image.new("L", size, 0)
    painted.paste(255, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 2 // 3))
    return painted.filter(ImageFilter.GaussianBlur(blur))


def filled_by_pillow(picture: Image.Image, painted: Image.Image) -> Image.Image:
    """The layers put on each other in 8 bits, one by one, with Pillow's blur and Pillow's alpha."""
    known = picture.convert("RGBA")
    known.putalpha(ImageChops.invert(painted))
    premultiplied, result = known.convert("RGBa"), Image.new("RGBA", picture.size)
    for radius, repeats in LAYERS:
        for _ in range(repeats):
            layer = premultiplied.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
            result = Image.alpha_composite(result, layer)
    return result.convert("RGB")


@pytest.mark.parametrize("blur", [0, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_part_is_filled_with_the_colours_around_it_as_in_sd_webui(seed: int, blur: int) -> None:
    """sd-webui rounds each layer to 8 bits, where it is nearly transparent too: its colours are a few levels off."""
    picture, painted = photo(seed), mask(blur)
    filled = np.asarray(fill(picture, painted), int)
    difference = np.abs(filled - np.asarray(filled_by_pillow(picture, painted), int))
    assert difference.max() <= 10
    assert difference.mean() <= 0.6
    assert np.abs(filled - np.asarray(picture, int)).max() > 60, "the part is another one"


@pytest.mark.parametrize("radius", [0, 0.5, 2, 16, 256])
def test_the_blur_is_pillows(radius: float) -> None:
    blurred = np.asarray(photo().filter(ImageFilter.GaussianBlur(radius)), float)
    assert np.abs(gaussian(np.asarray(photo(), float), radius) - blurred).max() <= 2  # Pillow rounds six times


def test_outside_of_the_mask_the_pixels_stay() -> None:
    kept = np.asarray(mask(3)) == 0
    assert kept.any()
    assert np.array_equal(np.asarray(fill(photo(), mask(3)))[kept], np.asarray(photo())[kept])
    assert np.array_equal(np.asarray(fill(photo(), Image.new("L", SIZE, 0))), np.asarray(photo()))


def test_what_is_under_the_mask_does_not_count() -> None:
    other = Image.composite(photo(5), photo(), mask())
    assert np.array_equal(np.asarray(fill(other, mask())), np.asarray(fill(photo(), mask())))


def test_a_white_mask_leaves_nothing_to_fill_with() -> None:
    assert not np.asarray(fill(photo(), Image.new("L", SIZE, 255))).any()


def test_latent_content_takes_the_place_of_the_parts_latents_only() -> None:
    rng = np.random.default_rng(0)
    latents, noise = (rng.standard_normal((1, 4, 2, 3)).astype(np.float32) for _ in range(2))
    where = np.zeros((1, 1, 2, 3), np.float32)
    where[..., 1:] = 1
    for content, inside in ((LATENT_NOISE, noise), (LATENT_NOTHING, 0 * noise), (FILL, latents), (ORIGINAL, latents)):
        assert np.array_equal(mask_latents(latents, noise, where, content), np.where(where == 1, inside, latents))


def test_the_vae_encodes_the_filled_picture_and_the_nine_channels_keep_theirs(linear_bundle) -> None:
    manifest, size = linear_bundle.manifest, (WIDTH, HEIGHT)
    by_content = {
        content: prepare_inpainting(photo(0, size), mask(0, size), manifest, masked_content=content)
        for content in MASKED_CONTENTS
    }
    original = by_content[ORIGINAL]
    wanted = np.asarray(fill(photo(0, size), mask(0, size)), np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    for content, prepared in by_content.items():
        if content != ORIGINAL:
            assert np.abs(prepared.array - wanted).max() < 1e-6
        assert np.array_equal(prepared.masked_image, original.masked_image)
        assert np.array_equal(np.asarray(prepared.original), np.asarray(photo(0, size)))
    assert np.abs(original.array - wanted).max() > 0.2
