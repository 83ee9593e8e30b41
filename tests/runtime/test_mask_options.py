import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.mask_options import (
    check_mask_blur,
    check_padding_mask_crop,
    check_strength,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_strength, 0),
        (check_strength, 1.0),
        (check_mask_blur, 0),
        (check_mask_blur, 4.5),
        (check_padding_mask_crop, None),
        (check_padding_mask_crop, 0),
    ],
)
def test_a_sound_value_is_kept(check, value):
    assert check("option", value) == value


@pytest.mark.parametrize(
    ("check", "value", "wanted"),
    [
        *((check_strength, value, "a number from 0 to 1") for value in (-0.1, 1.1, NAN, "half", True, None)),
        *((check_mask_blur, value, "a number of pixels from 0 to 256") for value in (-1, NAN, 257, float("inf"), "4")),
        *((check_padding_mask_crop, value, "an integer of 0 or more pixels") for value in (-1, 3.5, NAN, True, "32")),
    ],
)
def test_any_other_value_is_refused(check, value, wanted):
    with pytest.raises(UserError) as error:
        check("the option", value)
    assert (error.value.subject, error.value.got, error.value.wanted) == ("the option", repr(value), wanted)
