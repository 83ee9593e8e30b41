import json

import numpy as np
import pytest

from mlc_controlnet.bundle.sampler_description import (
    SamplerDescriptions,
    SamplerOptions,
    TrainingSchedule,
    descriptions_from_json,
    descriptions_to_json,
)
from mlc_controlnet.errors import UserError

DESCRIPTIONS = SamplerDescriptions(
    "epsilon",
    (TrainingSchedule(np.float32([0.9, 1 / 3, 0]), np.float32([-1.1, 0.3, np.inf])),),
    {
        "unipc": SamplerOptions("unipc", solver_order=3, disable_corrector=(0, 1), sigma_min=0.25),
        "ddim": SamplerOptions("ddim"),
    },
)


def test_descriptions_survive_the_way_through_their_file_bit_by_bit():
    read = descriptions_from_json(json.dumps(descriptions_to_json(DESCRIPTIONS)).encode(), "samplers.json")
    assert read.prediction_type == "epsilon"
    assert read.samplers == DESCRIPTIONS.samplers
    for name in ("alphas_cumprod", "log_sigmas"):
        ours, theirs = getattr(read.schedules[0], name), getattr(DESCRIPTIONS.schedules[0], name)
        assert ours.tobytes() == theirs.tobytes()


def test_options_that_have_their_default_are_not_written():
    assert descriptions_to_json(DESCRIPTIONS)["samplers"]["ddim"] == {"method": "ddim"}


def changed(path: str, value: object) -> bytes:
    raw = descriptions_to_json(DESCRIPTIONS)
    *parents, last = path.split(".")
    target = raw
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target[key]
    target[last] = value
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", r"samplers.json: got text that is not JSON"),
        (b"[]", r"samplers.json"),
        (changed("prediction_type", "flow"), r"samplers.json.prediction_type: got 'flow', wanted one of epsilon"),
        (changed("samplers.ddim.schedule", 1), r"samplers.ddim.schedule: got 1, wanted 0 to 0"),
        (changed("samplers.ddim.order", 1), r"samplers.ddim: got unknown order"),
        (changed("schedules.0.log_sigmas", "AAAA"), r"schedules\[0\].log_sigmas: got text that does not decode"),
        (
            changed("schedules.0.log_sigmas", "AAAAAA=="),
            r"schedules\[0\]: got 3 and 1 numbers, wanted two lists",
        ),
    ],
)
def test_a_file_that_is_not_sound_is_named_with_the_place(data, error):
    with pytest.raises(UserError, match=error):
        descriptions_from_json(data, "samplers.json")
