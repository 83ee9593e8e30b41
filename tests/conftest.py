"""Fixtures that several folders share, and how tests are marked and distributed over worker processes.

The fixtures are a model in the shape of `circles` with random weights, captured and compiled once, the bundled model
compiled once, and a bundle of linear components for the code that runs bundles. torch, diffusers and TVM are imported
inside the fixtures that need them, so a test that needs none of them starts quickly.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.shared_build import shared_builds

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from mlc_controlnet.bundle.reader import Bundle
    from mlc_controlnet.capture import CapturedModel
    from mlc_controlnet.checkpoint import Checkpoint
    from tests.fixtures.shared_build import BuildOnce

ROOT = Path(__file__).parent.parent
BROWSER_TESTS = ROOT / "tests" / "browser"
# They compile a whole model, build the page or start Chromium: a test that uses one is marked `integration`.
INTEGRATION_FIXTURES = {
    "llvm_library",
    "circles_bundle",
    "circles_webgpu_bundle",
    "several_controlnets",
    "control_loras",
    "engine_site",
    "visit",
}
# A test file that imports one of these runs kernels on a software adapter.
ON_WEBGPU = ("run_on_webgpu", "run_module_on_webgpu", "execute_all")

# More threads than cores wait for each other, so workers divide the cores. The libraries read this when they start.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))


@pytest.hookimpl(tryfirst=True)  # before pytest reads marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as `integration` by fixtures and imports, and say which tests share a worker (`--dist loadgroup`).

    The tests of one file share a worker because they share fixtures. All browser tests share one, so that only one
    Chromium runs at a time. They come first because they take longest.
    """
    for item in items:
        in_browser = BROWSER_TESTS in item.path.parents
        on_webgpu = isinstance(item, pytest.Function) and any(hasattr(item.module, name) for name in ON_WEBGPU)
        if in_browser or on_webgpu or INTEGRATION_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("integration")
        item.add_marker(pytest.mark.xdist_group("browser" if in_browser else str(item.path.relative_to(ROOT))))
    items.sort(key=lambda item: BROWSER_TESTS not in item.path.parents)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: WorkerController, ids: list[str]) -> None:
    """Stop where pytest and pytest-xdist disagree about groups: fixtures would be built twice, browsers start twice."""
    alone = [name for name in ids if "@" not in name]
    if alone and node.config.getoption("dist") == "loadgroup":
        pytest.exit(
            f"Groups of tests: got {len(alone)} tests without one (the first: {alone[0]}), wanted none. "
            "This release of pytest does not fit pytest-xdist; install the one that pyproject.toml names.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """(name, build) -> folder that `build` filled in the first worker that asked."""
    return shared_builds(tmp_path_factory)


@pytest.fixture(scope="session")
def random_model(build_once: BuildOnce) -> Path:
    """A diffusers folder; see tests/fixtures/random_model.py."""
    from tests.fixtures.random_model import save_random_model

    return build_once("random-model", lambda folder: save_random_model(folder / "model")) / "model"


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
def llvm_library(cleaned: CapturedModel, build_once: BuildOnce) -> Path:
    """The model's library for this machine's processor, after all passes."""
    from mlc_controlnet.compile.library import compile_library
    from mlc_controlnet.config import BuildConfig

    def build(folder: Path) -> None:
        config = BuildConfig(
            model="random", target="llvm", dtypes=("float32",), out=folder, tuning_db=ROOT / "tuning_db"
        )
        compile_library(cleaned.module, "random", "float32", config, folder)

    (library,) = build_once("llvm-library", build).glob("*.so")
    return library


@pytest.fixture(scope="session")
def linear_bundle(build_once: BuildOnce) -> Bundle:
    """A small but complete llvm bundle; tests must only read it. See tests/fixtures/linear_bundle.py."""
    return _linear_bundle(build_once, "linear-bundle", inpaints=False)


@pytest.fixture(scope="session")
def linear_inpainting_bundle(build_once: BuildOnce) -> Bundle:
    """The same bundle with an inpainting model's UNet."""
    return _linear_bundle(build_once, "linear-inpainting-bundle", inpaints=True)


@pytest.fixture(scope="session")
def linear_bundle_of_two(build_once: BuildOnce) -> Bundle:
    """The same bundle with two ControlNets, `lines` and `depth`, which share their functions."""
    return _linear_bundle(build_once, "linear-bundle-of-two", inpaints=False, controlnets=2)


@pytest.fixture(scope="session")
def linear_variant_bundle(build_once: BuildOnce) -> Bundle:
    """The same bundle with a second size, prompts of two chunks and a shallow UNet: see fixtures/variant_bundle.py."""
    from mlc_controlnet.bundle.reader import read_bundle
    from tests.fixtures.variant_bundle import variant_module, write_variant_bundle

    def build(folder: Path) -> None:
        from tvm import relax

        relax.build(variant_module(), "llvm").export_library(str(folder / "variants.so"))
        write_variant_bundle(folder / "linear-llvm", folder / "variants.so")

    return read_bundle(build_once("linear-variant-bundle", build) / "linear-llvm")


def _linear_bundle(build_once: BuildOnce, name: str, inpaints: bool, controlnets: int = 1) -> Bundle:
    from mlc_controlnet.bundle.reader import read_bundle
    from tests.fixtures.linear_bundle import compile_linear_library, linear_model, write_linear_bundle

    def build(folder: Path) -> None:
        compile_linear_library(folder / "linear.so", inpaints=inpaints)
        write_linear_bundle(
            folder / "linear-llvm",
            linear_model(),
            folder / "linear.so",
            inpaints=inpaints,
            controlnets=controlnets,
        )

    return read_bundle(build_once(name, build) / "linear-llvm")


@pytest.fixture
def linear_bundle_copy(tmp_path: Path, linear_bundle: Bundle) -> Path:
    """The folder of a copy, to be broken."""
    return shutil.copytree(linear_bundle.path, tmp_path / "linear-llvm")


@pytest.fixture(scope="session")
def several_controlnets(build_once: BuildOnce) -> Path:
    """A folder with a model of four ControlNets and its bundle; see tests/fixtures/controlnet_models.py."""
    from tests.fixtures.controlnet_models import build_several_controlnets

    return build_once("several-controlnets", build_several_controlnets)


@pytest.fixture(scope="session")
def control_loras(build_once: BuildOnce) -> Path:
    """A folder with a model, two Control-LoRAs and their bundle; see tests/fixtures/controlnet_models.py."""
    from tests.fixtures.controlnet_models import build_control_loras

    return build_once("control-loras", build_control_loras)


@pytest.fixture(scope="session")
def circles_model() -> Path:
    """The bundled model, in diffusers' layout."""
    from mlc_controlnet.checkpoint import find_model

    return find_model("circles")


@pytest.fixture(scope="session")
def circles_bundle(build_once: BuildOnce, circles_model: Path) -> Bundle:
    """The bundled model, built for llvm as a user builds it."""
    from mlc_controlnet.build import build
    from mlc_controlnet.bundle.reader import read_bundle
    from mlc_controlnet.config import BuildConfig

    def build_circles(folder: Path) -> None:
        out = folder / "circles-llvm"
        build(BuildConfig(str(circles_model), "llvm", ("float32",), out, ROOT / "tuning_db"))

    return read_bundle(build_once("circles-llvm", build_circles) / "circles-llvm")
