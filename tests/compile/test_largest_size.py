"""A size that is too large: what fits is said, and it does fit."""

import dataclasses

import pytest

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.compile.largest_size import find_largest_sizes
from mlc_controlnet.compile.library import OverLimits, plan_library
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS
from mlc_controlnet.passes.pipeline import clean

EMBEDDING = ("control_embedding",)


@pytest.fixture
def config(tmp_path) -> BuildConfig:
    return BuildConfig("random", "webgpu", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")


def refuse(checkpoint: Checkpoint, config: BuildConfig) -> OverLimits:
    captured = clean(capture(dataclasses.replace(checkpoint, components=EMBEDDING), "float32"))
    with pytest.raises(OverLimits) as raised:
        plan_library(captured.module, "float32", config)
    return raised.value


def test_the_largest_size_is_named_in_the_same_shape_and_square(
    checkpoint: Checkpoint, config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 128 x 256, where half of what the widest planes take is granted."""
    wide = dataclasses.replace(checkpoint, shape=dataclasses.replace(checkpoint.shape, height=128, width=256))
    monkeypatch.setitem(LIMITS, "maxStorageBufferBindingSize", largest_plane(wide, config) // 2)
    error = refuse(wide, config)
    assert error.components == EMBEDDING
    sizes = find_largest_sizes(wide, "float32", config, error)
    assert sizes == [(64, 128), (128, 128)]
    message = str(error.with_sizes(sizes))
    assert message.endswith("the largest that fits is --height 64 --width 128, or --height 128 --width 128")


def largest_plane(checkpoint: Checkpoint, config: BuildConfig) -> int:
    captured = clean(capture(dataclasses.replace(checkpoint, components=EMBEDDING), "float32"))
    return plan_library(captured.module, "float32", config).requirements.largest_binding_bytes


def test_a_kernel_that_is_too_large_at_every_size_says_so(
    checkpoint: Checkpoint, config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "maxComputeInvocationsPerWorkgroup", 1)
    error = refuse(checkpoint, config)
    assert find_largest_sizes(checkpoint, "float32", config, error) == []
    assert "no size is small enough" in str(error.with_sizes([]))
