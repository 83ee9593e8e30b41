"""The engine as an npm package: in a fresh project with a bundler, and by the examples of its README."""

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import WEB, Visit, run_npx
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

PAGE = """<!doctype html><title>A fresh project</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; script-src 'self' 'wasm-unsafe-eval'">
<control-net prompt="navy"></control-net><script type="module" src="./main.js"></script>"""
MAIN = """
import { createEngine } from "mlc-controlnet";
import "mlc-controlnet/element";
window.createEngine = createEngine;
window.drawn = new Promise((resolve) => addEventListener("controlnet-image", ({ detail }) => {
  const { width, height, data, settings } = detail;
  resolve({ size: [width, height], first: [...data.slice(0, 8)], prompt: settings.prompt });
}));
"""


@pytest.fixture(scope="module")
def package(engine_site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `npm pack` makes of the built engine, unpacked as `npm install` does."""
    folder = tmp_path_factory.mktemp("package")
    pack = ["npm", "pack", "--json", "--pack-destination", str(folder), str(engine_site / "engine")]
    packed = json.loads(subprocess.run(pack, capture_output=True, text=True, check=True).stdout)
    (tarball,) = folder.glob("mlc-controlnet-*.tgz")
    assert len(packed) == 1
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


@pytest.fixture(scope="module")
def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that Vite built, whose only dependency is the package."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "node_modules").mkdir()
    package.rename(folder / "node_modules" / "mlc-controlnet")
    (folder / "index.html").write_text(PAGE)
    (folder / "main.js").write_text(MAIN)
    (folder / "package.json").write_text('{"type": "module"}')
    run_npx("vite", "build", str(folder), "--base", "./", "--logLevel", "warn", "--configLoader", "native")
    return folder


@pytest.fixture(scope="module")
def facts(visit: Visit, project: Path, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("useTheElement", linear_webgpu_bundle, site=project / "dist", prompt="gold")


def test_the_element_draws_on_a_page_that_a_bundler_built(facts: dict[str, Any]):
    assert facts["drawn"]["size"] == [WIDTH, HEIGHT]
    assert facts["drawn"]["prompt"] == "gold"
    assert facts["shown"] == facts["drawn"]["first"]
    assert facts["line"][0] == 255  # what the pointer drew
    assert facts["line"][1] == 0


def test_the_element_tells_a_mistake_and_goes_on(facts: dict[str, Any]):
    assert facts["mistake"].startswith("bundleUrl: got '', wanted the address of a bundle's folder; pass for example")


def test_an_element_that_is_taken_out_while_it_loads_ends_the_load(facts: dict[str, Any]):
    assert facts["abandoned"] == ["create", "abort"]


def test_the_element_follows_its_attributes(visit: Visit, project: Path, linear_webgpu_bundle: Bundle):
    """Another bundle ends what runs, and its engine takes the other's place; another prompt replaces what was typed."""
    facts = visit("changeTheElement", linear_webgpu_bundle, site=project / "dist")
    assert facts["prompts"] == ["navy", "teal"]
    assert facts["isIdle"], "a bundle alone is loaded when somebody first draws"
    assert (facts["ended"], facts["running"], facts["drawn"]) == ("AbortError", 1, "teal")


def test_the_worker_is_a_file_of_its_own_that_the_bundler_took_along(project: Path):
    sizes = {path.name: path.stat().st_size for path in (project / "dist" / "assets").iterdir()}
    (worker,) = [name for name in sizes if name.startswith("worker")]
    assert sizes[worker] > 200_000  # the runtime
    assert sum(size for name, size in sizes.items() if name != worker) < 150_000  # which the page does without


def test_the_package_has_what_it_exports(package: Path, project: Path):
    del package  # it lies in the project
    folder = project / "node_modules" / "mlc-controlnet"
    described = json.loads((folder / "package.json").read_text())
    for entry in described["exports"].values():
        for file in entry.values() if isinstance(entry, dict) else [entry]:
            assert (folder / file).is_file(), file


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_its_readme_fit_its_types(project: Path, tmp_path: Path, number: int):
    readme = (project / "node_modules" / "mlc-controlnet" / "README.md").read_text()
    example = re.findall(r"```js\n(.*?)```", readme, re.DOTALL)[number]
    (tmp_path / "example.js").write_text(example)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(project / "node_modules")
    checks = {"allowJs": True, "checkJs": True, "noEmit": True, "types": [], "strict": False}
    options = {"target": "es2022", "module": "esnext", "moduleResolution": "bundler", **checks}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": ["example.js"]}))
    tsc = [str(WEB / "node_modules" / ".bin" / "tsc"), "--project", str(tmp_path)]
    checked = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_its_readme_has_three_examples_and_the_element(project: Path):
    readme = (project / "node_modules" / "mlc-controlnet" / "README.md").read_text()
    assert re.findall(r"^## (.*)", readme, re.MULTILINE) == ["Vanilla", "React", "Without a worker"]
    assert "<control-net bundle=" in readme


def test_the_element_is_short():
    assert len((WEB / "src" / "element" / "control_net.ts").read_text().splitlines()) < 200
