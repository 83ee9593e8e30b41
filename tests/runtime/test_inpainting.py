import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.inpainting import prepare_inpainting
from tests.fixtures.linear_bundle import HEIGHT, WIDTH


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
    inpainting = prepare_inpainting(picture, mask_of(255), manifest)
    assert inpainting.masked_image.shape == (1, 3, HEIGHT, WIDTH)
    assert inpainting.masked_image.dtype == inpainting.mask.dtype == np.float32
    assert not inpainting.masked_image[..., : WIDTH // 2].any()
    kept = np.asarray(picture)[:, WIDTH // 2 :].transpose(2, 0, 1) / np.float32(255) * 2 - 1
    np.testing.assert_allclose(inpainting.masked_image[0, ..., WIDTH // 2 :], kept, atol=1e-6)
    assert inpainting.notices == ()


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
    inpainting = prepare_inpainting(large, mask_of(255).resize((50, 50)), manifest)
    assert inpainting.notices == (
        "image: 72x48 was scaled to cover 24x16",
        "mask image: 50x50 was scaled to cover 24x16 and cropped around its centre",
    )


@pytest.mark.parametrize(("lacking", "subject"), [("image", "image"), ("mask_image", "mask image")])
def test_an_inpainting_model_needs_both(manifest, picture, lacking, subject):
    given = {"image": picture, "mask_image": mask_of(255), lacking: None}
    with pytest.raises(UserError, match=rf"^{subject}: got none, wanted a picture and a mask that is white where"):
        prepare_inpainting(**given, manifest=manifest)


@pytest.mark.parametrize(("given", "subject"), [("image", "image"), ("mask_image", "mask image")])
def test_another_model_takes_neither(linear_bundle, picture, given, subject):
    with pytest.raises(UserError, match=rf"^{subject}: got one, wanted none: linear is not an inpainting model"):
        prepare_inpainting(**{"image": None, "mask_image": None, given: picture}, manifest=linear_bundle.manifest)
    assert prepare_inpainting(None, None, linear_bundle.manifest) is None


@pytest.mark.parametrize("subject", ["image", "mask image"])
def test_what_is_no_picture_is_refused_by_its_own_name(manifest, picture, subject):
    given = {"image": picture, "mask_image": mask_of(255), subject.replace(" ", "_"): "file.png"}
    with pytest.raises(UserError, match=rf"^{subject}: got str, wanted a PIL.Image.Image"):
        prepare_inpainting(**given, manifest=manifest)
