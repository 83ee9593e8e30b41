from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from mlc_controlnet.components import VAE_ENCODER
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.inpainting import paste, prepare_init_image, prepare_inpainting
from mlc_controlnet.runtime.masks import blur_mask
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

LARGER = (96, 144)


@pytest.fixture
def manifest(linear_inpainting_bundle):
    return linear_inpainting_bundle.manifest


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def mask_of(left_half):
    """Grey levels: `left_half` left of the middle, black right of it."""
    grey = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey[:, : WIDTH // 2] = left_half
    return Image.fromarray(grey)


def test_white_is_repainted_and_black_is_kept(manifest, picture):
    prepared = prepare_inpainting(picture, mask_of(255), manifest)
    assert prepared.masked_image.shape == (1, 3, HEIGHT, WIDTH)
    assert prepared.masked_image.dtype == prepared.mask.dtype == np.float32
    assert not prepared.masked_image[..., : WIDTH // 2].any()
    kept = np.asarray(picture)[:, WIDTH // 2 :].transpose(2, 0, 1) / np.float32(255) * 2 - 1
    np.testing.assert_allclose(prepared.masked_image[0, ..., WIDTH // 2 :], kept, atol=1e-6)
    assert prepared.notices == ()


def test_a_cell_of_the_mask_is_its_upper_left_pixel(manifest, picture):
    """As torch's nearest: the middle cell of three is black at its right half and white at its left one."""
    assert prepare_inpainting(picture, mask_of(255), manifest).mask.tolist() == [[[[1, 1, 0], [1, 1, 0]]]]
    turned = mask_of(255).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert prepare_inpainting(picture, turned, manifest).mask.tolist() == [[[[0, 0, 1], [0, 0, 1]]]]


@pytest.mark.parametrize(("grey", "repainted"), [(127, 0.0), (128, 1.0)])
def test_a_grey_mask_is_cut_in_the_middle(manifest, picture, grey, repainted):
    assert prepare_inpainting(picture, mask_of(grey), manifest).mask[0, 0, 0, 0] == repainted


def test_a_coloured_mask_counts_by_its_brightness(manifest, picture):
    for color, repainted in (("yellow", 1), ("blue", 0)):
        mask = prepare_inpainting(picture, Image.new("RGB", (WIDTH, HEIGHT), color), manifest).mask
        assert (mask == repainted).all()


def test_pictures_of_another_size_are_scaled_with_a_notice_each(manifest, picture):
    large = picture.resize((3 * WIDTH, 3 * HEIGHT))
    prepared = prepare_inpainting(large, mask_of(255).resize((50, 50)), manifest)
    assert prepared.notices == (
        "image: 72x48 was scaled to cover 24x16",
        "mask image: 50x50 was scaled to cover 24x16 and cropped around its centre",
    )


@pytest.mark.parametrize(("lacking", "subject"), [("image", "image"), ("mask_image", "mask image")])
def test_an_inpainting_model_needs_both(manifest, picture, lacking, subject):
    given = {"image": picture, "mask_image": mask_of(255), lacking: None}
    with pytest.raises(UserError, match=rf"^{subject}: got none, wanted a picture and a mask that is white where"):
        prepare_inpainting(**given, manifest=manifest)


@pytest.mark.parametrize("given", ["image", "mask_image"])
def test_a_bundle_without_an_encoder_takes_neither(linear_bundle, picture, given):
    manifest = linear_bundle.manifest
    components = {name: entry for name, entry in manifest.components.items() if name != VAE_ENCODER}
    manifest = replace(manifest, components=components)
    with pytest.raises(UserError, match=r"image: got one, wanted none: the bundle of linear has no VAE encoder"):
        prepare_inpainting(**{"image": None, "mask_image": None, given: picture}, manifest=manifest)
    with pytest.raises(UserError, match=r"^image: got one, wanted none: the bundle of linear has no VAE encoder"):
        prepare_init_image(picture, manifest)
    assert prepare_inpainting(None, None, manifest) is None
    assert prepare_init_image(None, manifest) is None


def test_four_channels_take_a_picture_with_or_without_a_mask(linear_bundle, picture):
    manifest = linear_bundle.manifest
    assert prepare_inpainting(picture, None, manifest) is None
    assert prepare_inpainting(picture, mask_of(255), manifest).mask.tolist() == [[[[1, 1, 0], [1, 1, 0]]]]
    with pytest.raises(UserError, match=r"^image: got none, wanted a picture and a mask"):
        prepare_inpainting(None, mask_of(255), manifest)


@pytest.mark.parametrize("subject", ["image", "mask image"])
def test_what_is_no_picture_is_refused_by_its_own_name(manifest, picture, subject):
    given = {"image": picture, "mask_image": mask_of(255), subject.replace(" ", "_"): "file.png"}
    with pytest.raises(UserError, match=rf"^{subject}: got str, wanted a PIL.Image.Image"):
        prepare_inpainting(**given, manifest=manifest)


def test_the_initial_picture_is_that_of_diffusers(manifest, picture):
    theirs = VaeImageProcessor().preprocess(picture).numpy()
    init = prepare_init_image(picture, manifest)
    assert init.array.dtype == np.float32
    np.testing.assert_allclose(init.array, theirs, atol=1e-6)
    np.testing.assert_array_equal(prepare_inpainting(picture, mask_of(255), manifest).array, init.array)
    assert init.notices == ()
    large = prepare_init_image(picture.resize((100, 100)), manifest)
    assert large.notices == ("image: 100x100 was scaled to cover 24x16 and cropped around its centre",)


@pytest.fixture
def larger(manifest):
    """The manifest of a model for 144 x 96."""
    return replace(manifest, model=replace(manifest.model, height=LARGER[0], width=LARGER[1]))


@pytest.fixture
def photo():
    """A smooth picture much larger than the model's, and not of its aspect ratio."""
    small = np.random.default_rng(2).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((200, 150), Image.Resampling.BICUBIC)


@pytest.fixture
def face():
    """The mask of an ellipse off the middle of `photo`."""
    down, across = np.mgrid[:150, :200]
    inside = ((down - 60) / 20) ** 2 + ((across - 130) / 15) ** 2 < 1
    return Image.fromarray((255 * inside).astype(np.uint8))


def their_inputs(photo, mask_image, box):
    """diffusers' arrays for `padding_mask_crop`: picture, mask, masked picture, mask of the latents."""
    size = {"height": LARGER[0], "width": LARGER[1], "crops_coords": box, "resize_mode": "fill"}
    init = VaeImageProcessor().preprocess(photo, **size)
    processor = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    mask = processor.preprocess(mask_image, **size)
    cells = torch.nn.functional.interpolate(mask, size=(LARGER[0] // 8, LARGER[1] // 8))
    return init.numpy(), (init * (mask < 0.5)).numpy(), cells.numpy()


@pytest.mark.parametrize("padding", [0, 9, 1000])
def test_only_the_part_around_the_mask_is_drawn_as_in_diffusers(larger, photo, face, padding):
    softened = Image.fromarray(blur_mask(np.asarray(face), 3))
    prepared = prepare_inpainting(photo, face, larger, mask_blur=3, padding_mask_crop=padding)
    box = VaeImageProcessor.get_crop_region(softened, LARGER[1], LARGER[0], pad=padding)
    assert prepared.crop.box == box
    image, masked_image, mask = their_inputs(photo, softened, box)
    np.testing.assert_allclose(prepared.array, image, atol=1e-6)
    np.testing.assert_allclose(prepared.masked_image, masked_image, atol=1e-6)
    np.testing.assert_array_equal(prepared.mask, mask)
    assert 0 < prepared.mask.mean() < 1


@pytest.mark.parametrize("mask_blur", [0, 3])
def test_the_drawn_part_is_pasted_as_in_diffusers(manifest, photo, face, mask_blur):
    prepared = prepare_inpainting(photo, face, manifest, mask_blur, padding_mask_crop=9)
    drawn = Image.fromarray(np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    softened = Image.fromarray(blur_mask(np.asarray(face), mask_blur))
    theirs = VaeImageProcessor().apply_overlay(softened, photo, drawn, prepared.crop.box)
    ours = paste(drawn, prepared)
    assert ours.size == photo.size
    # Theirs multiplies by the mask, rounds, and divides again: two levels are lost where the mask is soft.
    np.testing.assert_allclose(np.asarray(ours, int), np.asarray(theirs, int), atol=2)


@pytest.mark.parametrize("padding", [None, 9])
def test_a_pixel_outside_of_the_mask_is_the_original(manifest, photo, face, padding):
    prepared = prepare_inpainting(photo, face, manifest, mask_blur=2, padding_mask_crop=padding)
    result = np.asarray(paste(Image.new("RGB", (WIDTH, HEIGHT), "red"), prepared))
    outside, inside = (np.asarray(prepared.overlay_mask) == grey for grey in (0, 255))
    assert outside.any() and inside.any()
    np.testing.assert_array_equal(result[outside], np.asarray(prepared.original)[outside])
    np.testing.assert_array_equal(result[inside], np.broadcast_to((255, 0, 0), (inside.sum(), 3)))
    assert prepared.original.size == (photo.size if padding else (WIDTH, HEIGHT))


def test_a_black_mask_returns_the_input(manifest, picture):
    prepared = prepare_inpainting(picture, mask_of(0), manifest, mask_blur=4)
    assert not prepared.mask.any()
    result = paste(Image.new("RGB", (WIDTH, HEIGHT), "red"), prepared)
    np.testing.assert_array_equal(result, picture)


def test_there_is_no_seam(larger, photo, face):
    """The part is drawn unchanged: after the way there and back, every pixel is where it was, to half a pixel."""
    prepared = prepare_inpainting(photo, face, larger, mask_blur=2, padding_mask_crop=9)
    pixels = np.rint(127.5 * (prepared.array[0].transpose(1, 2, 0) + 1)).astype(np.uint8)
    result = np.asarray(paste(Image.fromarray(pixels), prepared), int)
    original = np.asarray(photo, int)
    assert np.abs(result - original).max() <= np.abs(np.diff(original, axis=1)).max() / 2


def test_the_notices_name_a_mask_of_another_size_and_a_part_that_is_larger_than_the_model(manifest, photo, face):
    small = prepare_inpainting(photo, face.resize((100, 75)), manifest, padding_mask_crop=0)
    assert small.notices == (
        "mask image: 100x75 was scaled to cover 200x150",
        f"image: the part around the mask, {small.crop.width}x{small.crop.height}, is drawn at 24x16 and enlarged",
    )
    speck = Image.fromarray(np.pad(np.full((2, 3), 255, np.uint8), ((70, 78), (90, 107))))
    assert prepare_inpainting(photo, speck, manifest, padding_mask_crop=2).notices == ()


@pytest.mark.parametrize(
    ("mask_size", "got"), [((150, 200), "150x200 pixels"), ((200, 140), "200x140 pixels"), ((50, 50), "50x50 pixels")]
)
def test_a_mask_of_another_shape_is_refused_where_only_its_part_is_drawn(manifest, photo, mask_size, got):
    mask = Image.new("L", mask_size, 255)
    with pytest.raises(UserError, match=rf"^mask image: got {got}, wanted 200x150, the size of the picture"):
        prepare_inpainting(photo, mask, manifest, padding_mask_crop=9)


def test_a_mask_whose_sides_were_rounded_has_the_pictures_shape(manifest, photo, face):
    cropped = "mask image: 67x50 was scaled to cover 200x150 and cropped around its centre"
    assert prepare_inpainting(photo, face.resize((67, 50)), manifest, padding_mask_crop=9).notices[0] == cropped


def test_a_black_mask_has_no_part_to_draw(manifest, photo):
    with pytest.raises(UserError, match=r"^mask image: got black everywhere, wanted white where the model repaints"):
        prepare_inpainting(photo, Image.new("L", photo.size), manifest, padding_mask_crop=9)
