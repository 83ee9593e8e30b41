"""The real Chromium and what it needs: the built page, and bundles for WebGPU."""

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.config import BuildConfig
from tests.browser.player import Player, ScenarioFailed

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"

Visit = Callable[..., dict[str, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test of this folder a second time: browsers and their drivers lose a race now and then.

    The summary names what needed it. A fault of the page or of the engine fails twice.
    """
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.flaky(reruns=1))


def run_npx(*command: str) -> None:
    """Run a program of web/node_modules in web/."""
    if not (WEB / "node_modules").is_dir() or shutil.which("npx") is None:
        pytest.fail("the browser tests need Node 20 and `npm ci` in web/ (`make test` does it)")
    subprocess.run(["npx", *command], cwd=WEB, check=True)


def build_linear_bundle(folder: Path, inpaints: bool = False, controlnets: int = 1) -> Bundle:
    from mlc_controlnet.compile.library import compile_library
    from tests.fixtures.linear_bundle import linear_model, linear_module, write_linear_bundle

    config = BuildConfig("linear", "webgpu", ("float32",), folder, folder / "no-records")
    library, description = compile_library(linear_module(inpaints=inpaints), "linear", "float32", config, folder)
    options = {"description": description, "inpaints": inpaints, "controlnets": controlnets}
    return write_linear_bundle(folder / "bundle", linear_model(), library, **options)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, built by Vite."""
    folder = tmp_path_factory.mktemp("site")
    run_npx("vite", "build", "--outDir", str(folder))
    return folder


@pytest.fixture(scope="session")
def linear_webgpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Linear components of 24 x 16 pixels for WebGPU: they load in a second or two."""
    return build_linear_bundle(tmp_path_factory.mktemp("linear-webgpu"))


def add_processor_library(bundle: Bundle, module: Any, folder: Path, instruction_set: str = "wasm-simd128") -> Bundle:
    """Write the bundle to `folder` anew, with a library for the browser's processor too."""
    from mlc_controlnet.bundle.writer import BundleWriter
    from mlc_controlnet.compile.library import plan_library, write_library
    from mlc_controlnet.export.weight_residency import plan_residency

    manifest = bundle.manifest
    config = BuildConfig(manifest.model.name, "webgpu", ("float32",), folder, folder / "no-records")
    planned = plan_library(module, "float32", config, instruction_set)
    library, description = write_library(planned, manifest.model.name, bundle.path.parent)
    with BundleWriter(folder) as writer:
        for entry in manifest.files:
            writer.add_file(entry.path, bundle.path / entry.path)
        writer.add_file(description.file, library)
        libraries = (*manifest.libraries, description)
        memory = plan_residency(libraries, manifest.components, manifest.params, manifest.variants)
        return writer.finish(dataclasses.replace(manifest, libraries=libraries, memory=memory, files=()))


@pytest.fixture(scope="session")
def linear_processor_bundle(tmp_path_factory: pytest.TempPathFactory, linear_webgpu_bundle: Bundle) -> Bundle:
    """The same for WebGPU and for processors."""
    from tests.fixtures.linear_bundle import linear_module

    folder = tmp_path_factory.mktemp("linear-processor") / "bundle"
    return add_processor_library(linear_webgpu_bundle, linear_module(), folder)


@pytest.fixture(scope="session")
def linear_webgpu_bundle_of_two(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with two ControlNets, `lines` and `depth`."""
    return build_linear_bundle(tmp_path_factory.mktemp("linear-webgpu-of-two"), controlnets=2)


@pytest.fixture(scope="session")
def linear_variant_webgpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with a second size, prompts of two chunks and a shallow UNet."""
    from mlc_controlnet.compile.library import compile_library
    from tests.fixtures.variant_bundle import variant_module, write_variant_bundle

    folder = tmp_path_factory.mktemp("linear-variant-webgpu")
    config = BuildConfig("linear", "webgpu", ("float32",), folder, folder / "no-records")
    library, description = compile_library(variant_module(), "linear", "float32", config, folder)
    return write_variant_bundle(folder / "bundle", library, description)


@pytest.fixture(scope="session")
def linear_inpainting_webgpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with an inpainting model's UNet."""
    return build_linear_bundle(tmp_path_factory.mktemp("linear-inpainting-webgpu"), inpaints=True)


@pytest.fixture(scope="session")
def circles_webgpu_bundle(
    tmp_path_factory: pytest.TempPathFactory, circles_model: Path, circles_bundle: Bundle
) -> Bundle:
    """The bundled model, built for WebGPU in float32 alone: software adapters have no float16."""
    from tests.fixtures.build_for_browsers import build_for_browsers

    out = tmp_path_factory.mktemp("circles") / "circles-webgpu"
    config = BuildConfig(str(circles_model), "webgpu", ("float32",), out, ROOT / "tuning_db")
    return build_for_browsers(config, circles_bundle)


@pytest.fixture(scope="session")
def engine_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty page of somebody else's, with what `npm run build:engine` writes in `engine/`."""
    folder = tmp_path_factory.mktemp("engine-site")
    run_npx("vite", "build", "--config", "vite.engine.config.ts", "--outDir", str(folder / "engine"))
    run_npx("tsc", "-p", "tsconfig.types.json", "--outDir", str(folder / "engine" / "types"))
    (folder / "index.html").write_text("<!doctype html><title>Somebody's site</title>")
    return folder


@pytest.fixture(scope="session")
def player() -> Iterator[Player]:
    with tempfile.TemporaryFile("w+") as log, Player(log) as player:
        yield player


@pytest.fixture(scope="session")
def visit(site: Path, player: Player, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Play a scenario of scenarios.mjs in Chromium.

    (scenario, bundle, webgpu="software", flags=(), site=the demo page, **options) -> the scenario's facts.
    """
    demo_site = site

    def play(
        scenario: str,
        bundle: Bundle,
        webgpu: str = "software",
        flags: tuple[str, ...] = (),
        site: Path = demo_site,
        **options: Any,
    ) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp(scenario)
        call = {
            "scenario": scenario,
            "site": str(site),
            "bundle": str(bundle.path),
            "folder": str(folder),
            "webgpu": webgpu,
            "flags": flags,
            "options": options,
        }
        try:
            return player.play(call)
        except ScenarioFailed as failure:
            pytest.fail(f"{scenario} (screenshot in {folder}):\n{failure}")

    return play
