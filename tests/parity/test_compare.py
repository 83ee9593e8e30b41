from pathlib import Path

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.compare import compare_model


def test_a_size_that_is_not_square_is_compared_in_both_dtypes(random_model: Path) -> None:
    said: list[str] = []
    dtypes = ("float32", "float16")
    title, *lines = compare_model(str(random_model), dtypes, 64, 96, ("text_encoder",), said.append)
    parts = ["capture model ...", "compute with torch ...", "compile in float32 ...", "compile in float16 ..."]
    assert said == parts
    assert title.startswith("model, 64 x 96, against torch")
    assert [line.split()[0] for line in lines] == ["float32", "float16"]
    assert all(float(line.rpartition("text_encoder ")[2]) > 40 for line in lines)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UserError, match="--dtype: got 'int8'"):
        next(compare_model("circles", ("int8",), None, None))
