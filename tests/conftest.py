"""What several tests share: a model in the shape of `circles` with random weights, captured and compiled once, and a
bundle of linear components for what runs bundles.

torch, diffusers and TVM are imported by the fixtures that need them, so that the fast tests stay fast.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlc_controlnet.bundle.reader import Bundle
    from mlc_controlnet.capture import CapturedModel
    from mlc_controlnet.checkpoint import Checkpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder; see tests/fixtures/random_model.py."""
    from tests.fixtures.random_model import save_random_model

    return save_random_model(tmp_path_factory.mktemp("random") / "model")


@pytest.fixture(scope="session")
def checkpoint(random_model: Path) -> Checkpoint:
    """For pictures of 96 x 128: a size that is not square catches swapped axes."""
    from mlc_controlnet.checkpoint import load_checkpoint

    return load_checkpoint(random_model, height=96, width=128)


@pytest.fixture(scope="session")
def captured(checkpoint: Checkpoint) -> CapturedModel:
    from mlc_controlnet.capture import capture

    return capture(checkpoint)


@pytest.fixture(scope="session")
def cleaned(captured: CapturedModel) -> CapturedModel:
    from mlc_controlnet.passes.pipeline import clean

    return clean(captured)


@pytest.fixture(scope="session")
def llvm_library(cleaned: CapturedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's library for this machine's processor, through the whole pass pipeline."""
    from mlc_controlnet.compile.library import compile_library
    from mlc_controlnet.config import BuildConfig

    folder = tmp_path_factory.mktemp("library")
    config = BuildConfig(model="random", target="llvm", dtypes=("float32",), out=folder, tuning_db=ROOT / "tuning_db")
    return compile_library(cleaned.module, "random", "float32", config, folder)[0]


@pytest.fixture(scope="session")
def linear_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small but complete llvm bundle, to be read only; see tests/fixtures/linear_bundle.py."""
    from tests.fixtures.linear_bundle import compile_linear_library, linear_model, write_linear_bundle

    folder = tmp_path_factory.mktemp("linear")
    compile_linear_library(folder / "linear.so")
    return write_linear_bundle(folder / "linear-llvm", linear_model(), folder / "linear.so")


@pytest.fixture(scope="session")
def linear_inpainting_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with an inpainting model's UNet."""
    from tests.fixtures.linear_bundle import compile_linear_library, linear_model, write_linear_bundle

    folder = tmp_path_factory.mktemp("linear-inpainting")
    compile_linear_library(folder / "linear.so", inpaints=True)
    return write_linear_bundle(folder / "linear-llvm", linear_model(), folder / "linear.so", inpaints=True)


@pytest.fixture
def linear_bundle_copy(tmp_path: Path, linear_bundle: Bundle) -> Path:
    """The folder of a copy, to be broken."""
    return shutil.copytree(linear_bundle.path, tmp_path / "linear-llvm")


@pytest.fixture(scope="session")
def circles_model() -> Path:
    """The bundled model, in diffusers' layout."""
    from mlc_controlnet.checkpoint import find_model

    return find_model("circles")


@pytest.fixture(scope="session")
def circles_bundle(tmp_path_factory: pytest.TempPathFactory, circles_model: Path) -> Bundle:
    """The bundled model, built for llvm as a user builds it."""
    from mlc_controlnet.build import build
    from mlc_controlnet.config import BuildConfig

    out = tmp_path_factory.mktemp("circles") / "circles-llvm"
    return build(BuildConfig(str(circles_model), "llvm", ("float32",), out, ROOT / "tuning_db"))
