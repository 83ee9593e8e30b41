"""Which tuning records a build reads."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.compile.library import find_records
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.errors import UserError
from mlc_controlnet.tuning.records import append_record
from tests.tuning.operations import RECORD


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    for folder in ("webgpu/rdna3", "webgpu/ada", "llvm/x86-64-v3", "llvm/wasm-simd128"):
        append_record(tmp_path / folder, RECORD)
    return BuildConfig("circles", "webgpu", ("float32",), out=tmp_path / "out", tuning_db=tmp_path)


def test_a_gpu_gets_all_families_or_the_one_that_is_named(config: BuildConfig) -> None:
    assert list(find_records(config, None).families) == ["ada", "rdna3"]
    one = dataclasses.replace(config, tuning_family="rdna3")
    assert list(find_records(one, None).families) == ["rdna3"]


def test_a_processor_gets_its_instruction_set_also_in_a_browser(config: BuildConfig) -> None:
    assert list(find_records(config, "wasm-simd128").families) == ["wasm-simd128"]
    assert list(find_records(dataclasses.replace(config, target="llvm"), "x86-64-v3").families) == ["x86-64-v3"]


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"tuning_family": "voodoo"}, "--tuning-family: got 'voodoo', wanted one of ada, rdna3"),
        ({"tuning_family": "rdna3", "target": "metal"}, "wanted records for metal, of which there are none"),
        ({"tuning_family": "rdna3", "target": "llvm"}, "--tuning-family: got 'rdna3', wanted a target with GPUs"),
    ],
)
def test_a_family_that_is_not_there_is_one_line(config: BuildConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as raised:
        find_records(dataclasses.replace(config, **changes), None)
    assert words in str(raised.value)
