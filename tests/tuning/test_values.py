import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.tuning import browser
from mlc_controlnet.tuning.values import draw_values

PAGE = Path(browser.__file__).parent / "page"
DTYPES = ("float32", "float16", "uint32", "int32")
SHAPE = (3, 5, 7)  # an odd number of elements


def test_floats_have_a_random_sign_and_are_never_small() -> None:
    for dtype in ("float32", "float16"):
        values = draw_values(dtype, (64, 65), 1).astype(np.float64)
        assert np.abs(values).min() >= 0.5 and np.abs(values).max() < 1
        assert abs(values.mean()) < 0.03
        assert 0.74 < np.abs(values).mean() < 0.76


def test_another_seed_gives_other_values() -> None:
    first, second = (draw_values("float32", (4096,), seed) for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06
    assert not np.intersect1d(first, second).size > 8


@pytest.fixture(scope="module")
def drawn_by_the_page() -> dict[str, bytes]:
    """What page/values.mjs draws with seed 2, of each dtype, as bytes."""
    script = f"""
      import {{ drawValues }} from {json.dumps((PAGE / "values.mjs").as_uri())};
      const drawn = {json.dumps(DTYPES)}.map((dtype) => [dtype, drawValues(dtype, {np.prod(SHAPE)}, 2)]);
      console.log(JSON.stringify(drawn.map(([dtype, values]) => [dtype, Buffer.from(values.buffer).toString("hex")])));
    """
    command = ["node", "--input-type=module", "--eval", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {dtype: bytes.fromhex(text) for dtype, text in json.loads(printed)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tab_draws_the_same(drawn_by_the_page: dict[str, bytes], dtype: str) -> None:
    ours = draw_values(dtype, SHAPE, 2).tobytes()
    assert drawn_by_the_page[dtype][: len(ours)] == ours
