"""The picture that conditions: from any image to what the ControlNet reads."""

from dataclasses import replace

from PIL import Image

from mlc_controlnet.images.lines import looks_inverted
from mlc_controlnet.images.prepare import PreparedImage, cover, prepare_image, read_picture
from mlc_controlnet.runtime.crop import Crop, cut_out

SUBJECT = "control image"  # its name in error messages and notices
BLACK = 0.25  # of white: a picture without a lighter pixel shows nothing


def prepare_control_image(
    image: Image.Image | None, height: int, width: int, crop: Crop | None = None
) -> PreparedImage:
    """`prepare_image` for a control image: RGB, with a notice if it seems to be black where white is expected.

    With `crop`, the control image is that of the whole picture: it is fitted to the picture's size, and the same part
    is cut out of it.
    """
    if crop is None:
        prepared = prepare_image(image, height, width, SUBJECT)
    else:
        whole = cover(read_picture(image, height, width, SUBJECT), crop.picture_height, crop.picture_width, SUBJECT)
        prepared = PreparedImage(cut_out(whole.picture, crop, height, width), whole.notices)
    if looks_inverted(prepared.array):
        seen = "it looks like dark lines on white"
    elif image is not None and image.has_transparency_data and prepared.array.max() < BLACK:
        seen = "only black is left of it without its transparency"
    else:
        return prepared
    notice = (
        f"{SUBJECT}: {seen}; ControlNets for lines expect white lines on black, "
        "which --invert makes of it (in Python: mlc_controlnet.images.lines.invert)"
    )
    return replace(prepared, notices=(*prepared.notices, notice))
