"""A wheel, built from a source distribution without Node, works in an environment outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mlc_controlnet import __version__
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from tests.fixtures.linear_bundle import HEIGHT, WIDTH

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
SITE_PACKAGES = Path(pytest.__file__).parents[1]  # of the environment that runs the tests


def tracked(*folders: str) -> list[str]:
    """The files of the checkout that git tracks or would track, with /."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in names if (ROOT / name).is_file()]


def build(kind: str, source: Path, output: Path) -> Path:
    """Call the build backend as pip does, without its isolated environment: that would download setuptools."""
    code = f"import setuptools.build_meta as backend, sys; print(backend.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(output)]
    done = subprocess.run(command, cwd=source, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with Node's packages, so that nothing is written into the checkout itself."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "web" / "node_modules").symlink_to((ROOT / "web" / "node_modules").resolve())
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    return build("sdist", source, source.parent)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which has no web/node_modules."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build("wheel", unpacked, folder)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its core dependencies, those that no extra brings."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--quiet", "--no-cache-dir"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (installed,) = Distribution.discover(name="mlc-controlnet", path=[str(site_packages)])
    for name in required_by(installed):
        link_distribution(distribution(name), site_packages)
    return folder


def required_by(installed: Distribution) -> set[str]:
    """What pip would install with it, by its own requirements and theirs, without extras."""
    found: set[str] = set()
    waiting = [installed]
    while waiting:
        for text in waiting.pop().requires or ():
            requirement = Requirement(text)
            if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate()):
                found.add(requirement.name)
                waiting.append(distribution(requirement.name))
    return found


def link_distribution(found: Distribution, site_packages: Path) -> None:
    """Link an installed distribution's modules, packages and metadata."""
    tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        link = site_packages / top
        if not link.exists():
            link.symlink_to(Path(str(found.locate_file(top))))


@pytest.fixture
def run(environment: Path, tmp_path: Path):
    """Run a program of the environment in an empty folder, with all packages if `everything`; returns its output."""

    def call(program: str, *arguments: object, everything: bool = False) -> str:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if everything:  # a folder of PYTHONPATH: its .pth files, the editable install's among them, are not read
            variables["PYTHONPATH"] = str(SITE_PACKAGES)
        command = [str(environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=variables, check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return call


def test_the_wheel_has_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {*tracked("mlc_controlnet"), *(f"mlc_controlnet/packaged/{name}" for name in tracked("tuning_db"))}
    for name in ("page/index.html", "page/offline.js", "engine/index.js", "engine/engine.js", "engine/package.json"):
        wanted.add(f"mlc_controlnet/packaged/{name}")
    wanted.add("mlc_controlnet/packaged/engine/types/worker/index.d.ts")
    assert wanted - names == set()
    assert {name.split("/")[0] for name in names} == {"mlc_controlnet", f"mlc_controlnet-{__version__}.dist-info"}


def test_the_source_distribution_has_every_file_of_the_repository(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked()) - names - {".gitignore"} == set()
    assert not [name for name in names if "node_modules" in name]


def test_a_wheel_from_a_checkout_is_the_one_from_its_source_distribution(source: Path, wheel: Path) -> None:
    stale = source / "build" / "lib" / "mlc_controlnet" / "deleted_since.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    direct = build("wheel", source, source.parent)
    assert sorted(zipfile.ZipFile(direct).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_without_node_a_wheel_is_built_without_the_page(source: Path, tmp_path: Path) -> None:
    node_modules = source / "web" / "node_modules"
    packages = node_modules.readlink()
    node_modules.unlink()
    try:
        names = zipfile.ZipFile(build("wheel", source, tmp_path)).namelist()
    finally:
        node_modules.symlink_to(packages)
    assert "mlc_controlnet/packaged/tuning_db/README.md" in names
    assert not [name for name in names if "packaged/page" in name or "packaged/engine" in name]


def test_what_runs_is_the_wheel_and_not_the_checkout(run, environment: Path) -> None:
    for everything in (False, True):
        file = run("python", "-c", "import mlc_controlnet; print(mlc_controlnet.__file__)", everything=everything)
        assert Path(file.strip()).is_relative_to(environment)


def test_torch_is_not_among_the_core_dependencies(environment: Path) -> None:
    assert not [*environment.glob("lib/python*/site-packages/torch"), *environment.glob("lib/python*/*/diffusers")]


def test_the_console_script_knows_its_version_and_commands(run) -> None:
    assert run("mlc-controlnet", "--version").strip() == __version__
    for command in ("build", "generate", "verify", "serve", "engine", "train", "parity", "sources", "tune", "bench"):
        assert f"usage: mlc-controlnet {command}" in run("mlc-controlnet", command, "--help")


def test_core_dependencies_suffice_to_draw(run, linear_bundle, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (WIDTH, HEIGHT), "navy").save(tmp_path / "ring.png")
    assert linear_bundle.sha256 in run("mlc-controlnet", "verify", linear_bundle.path)
    options = ("--bundle", linear_bundle.path, "--prompt", "gold", "--seed", 7, "--num-inference-steps", 20)
    run("mlc-controlnet", "generate", *options, "--control-image", "ring.png", "--output", "out.png")
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == (WIDTH, HEIGHT) and "Seed: 7," in drawn.text["parameters"]  # type: ignore[attr-defined]


def test_training_presets_are_there(run) -> None:
    presets = {path.stem for path in (ROOT / "mlc_controlnet" / "train" / "presets").glob("*.yaml")}
    output = run("mlc-controlnet", "train", "presets", everything=True)
    assert presets and all(name in output for name in presets)


def test_the_toolchain_has_the_same_inputs_as_in_the_checkout(run) -> None:
    """The key of the wasm runtime is a hash of the overlay's files, the recipe and the wheels."""
    code = "from mlc_controlnet.toolchain.wasm_runtime import installed_inputs; print(installed_inputs().key())"
    here = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert run("python", "-c", code, everything=True) == here


def test_a_component_builds_with_the_tuning_records_of_the_package(run, tmp_path: Path) -> None:
    output = run(
        "mlc-controlnet", "build", "--target", "llvm", "--component", "text_encoder", "--out", "made", everything=True
    )
    (records,) = re.findall(r"tuning_db +(\S+)", output)
    assert Path(records).parts[-3:] == ("mlc_controlnet", "packaged", "tuning_db")
    assert (Path(records) / "README.md").is_file()
    assert (tmp_path / "made" / "manifest.json").is_file()


def test_tuning_writes_below_the_working_directory(run) -> None:
    """Not into the package, which may be read-only and ends with its next release."""
    where = run("python", "-c", "from mlc_controlnet.cli.tune import DEFAULT_RECORDS; print(DEFAULT_RECORDS)")
    assert where.strip() == "tuning_db"


def test_the_engine_can_be_written(run, tmp_path: Path) -> None:
    run("mlc-controlnet", "engine")
    assert (tmp_path / "dist" / "engine" / "types" / "engine" / "index.d.ts").is_file()


@pytest.mark.parametrize(
    ("command", "everything", "remedy"),
    [
        (("bench", "report"), True, "clone the repository"),
        (("build", "--target", "llvm"), False, "its extras compile and train"),
    ],
    ids=["a checkout", "an extra"],
)
def test_a_command_that_needs_more_says_so_in_one_line(
    environment: Path, tmp_path: Path, command: tuple[str, ...], everything: bool, remedy: str
) -> None:
    variables = {**os.environ, "PYTHONPATH": str(SITE_PACKAGES) if everything else ""}
    program = [environment / "bin" / "mlc-controlnet", *command]
    done = subprocess.run(program, cwd=tmp_path, env=variables, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and remedy in done.stderr


def test_the_licenses_of_what_is_shipped_are_complete() -> None:
    """Each text is in the file as the installed packages have it."""
    text = THIRD_PARTY_LICENSES.read_text(encoding="utf-8")
    zig, node = SITE_PACKAGES / "ziglang", ROOT / "web" / "node_modules"
    (tvm_ffi,) = SITE_PACKAGES.glob("apache_tvm_ffi-*.dist-info")
    files = [
        SITE_PACKAGES / "tvm" / "LICENSE",
        SITE_PACKAGES / "tvm" / "NOTICE",
        SITE_PACKAGES / "tvm" / "licenses" / "LICENSE.builtin_fp16.txt",
        tvm_ffi / "licenses" / "LICENSE",
        tvm_ffi / "licenses" / "NOTICE",
        zig / "LICENSE",
        *(zig / "lib" / name / "LICENSE.TXT" for name in ("libcxx", "libcxxabi", "libunwind")),
        zig / "lib" / "libc" / "wasi" / "LICENSE-MIT",
        zig / "lib" / "libc" / "wasi" / "libc-top-half" / "musl" / "COPYRIGHT",
        *(node / name / file for name in ("@mlc-ai/web-runtime",) for file in ("LICENSE", "NOTICE")),
        *(node / name / "LICENSE" for name in ("@huggingface/tokenizers", "@techstark/opencv-js", "preact", "idb")),
        node / "rolldown" / "LICENSE",
    ]
    missing = [str(file) for file in files if file.read_text(encoding="utf-8").strip() not in text]
    assert missing == []
    # The npm package has no licence's file; the project's text is that of its other packages.
    assert "ONNX Runtime: licence" in text and "Copyright (c) Microsoft Corporation" in text
    (dependencies,) = re.findall(r'"dependencies": \{(.*?)\}', (ROOT / "web" / "package.json").read_text(), re.DOTALL)
    assert [name for name in re.findall(r'"(\S+)":', dependencies) if name not in text] == []
