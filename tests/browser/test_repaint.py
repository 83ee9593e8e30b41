"""A visitor of the page brushes over a part of a photo, and an inpainting model repaints it."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import Visit
from tests.browser.png_file import png_file
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

PHOTO = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
STROKES = [0.15, 0.35]  # of a brush as broad as 0.3 of the photo: together its left half


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_inpainting_webgpu_bundle: Bundle) -> dict[str, Any]:
    options = {"photo": png_file(PHOTO), "strokes": STROKES, "prompt": "gold", "seed": 5}
    return visit("repaintAPhoto", linear_inpainting_webgpu_bundle, **options)


def test_what_was_brushed_over_is_repainted_as_by_the_native_library(
    facts: dict[str, Any], linear_inpainting_bundle: Bundle
):
    mask = np.zeros_like(PHOTO)
    mask[:, : WIDTH // 2] = 255
    drawn = ControlNetPipeline.from_bundle(linear_inpainting_bundle)(
        "gold",
        Image.fromarray(PHOTO),
        seed=5,
        mask_image=Image.fromarray(mask),
        control_image=Image.open(facts["outline"]),
        control_guidance_end=0.5,
    )
    wanted, picture = np.asarray(drawn.images[0], int), np.asarray(Image.open(facts["picture"]).convert("RGB"), int)
    assert facts["end"].startswith("Done")
    assert wanted.std() > 10  # not a flat picture
    assert np.abs(picture - wanted).max() <= 1  # a value near .5 may round the other way


def test_the_page_speaks_of_repainting(facts: dict[str, Any]):
    assert facts["title"] == "Brush over a part, describe what belongs there"
    assert facts["brushed"] == f"Picture to repaint: {WIDTH} by {HEIGHT}, brushed over"


def test_without_a_photo_the_page_says_what_it_needs(facts: dict[str, Any]):
    (message,) = facts["withoutPhoto"]
    assert message.startswith("Photo: got none, wanted a picture of which a part is repainted.")
    (message,) = facts["wrongFile"]
    assert message.startswith("Photo notes.txt: got text/plain, wanted a picture such as PNG or JPEG.")
    assert facts["messages"] == []
    assert facts["complaints"] == []


def test_what_was_drawn_can_be_repainted_and_its_edges_taken(facts: dict[str, Any]):
    assert facts["again"] == f"Picture to repaint: {WIDTH} by {HEIGHT}, nothing brushed over"
    assert facts["board"].startswith("Drawing board: Canny edges of a picture")
