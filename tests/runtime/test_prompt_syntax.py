import json
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.prompt_syntax import parse_prompt

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "prompts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES["parsed"], ids=lambda case: case["prompt"])
def test_a_prompt_has_sd_webuis_segments(case):
    parts = parse_prompt(case["prompt"])
    got = [[[segment.text, segment.weight] for segment in part] for part in parts]
    assert [[text for text, _ in part] for part in got] == [[text for text, _ in part] for part in case["parts"]]
    weights, wanted = ([weight for part in parts for _, weight in part] for parts in (got, case["parts"]))
    np.testing.assert_allclose(weights, wanted, rtol=1e-15)


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["prompt"])
def test_what_cannot_be_drawn_is_refused_by_name(case):
    with pytest.raises(UserError) as error:
        parse_prompt(case["prompt"], "negative prompt")
    assert str(error.value).startswith(f"negative prompt: got {case['message']}")
