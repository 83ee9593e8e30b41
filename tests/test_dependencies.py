"""pyproject.toml declares what the code imports, in the extra of those who need it."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlc_controlnet"
# Without images/annotators.py: only training makes control images from pictures.
READING = ("images/lines.py", "images/prepare.py", "images/read.py")
DRAWING = (
    *("runtime", "bundle", *READING, "errors.py", "files.py", "locations.py", "machine.py", "notices.py"),
    "cli/generate.py",
)
TRAINING = ("train", "images")
SERVING = ("serve", "images", "cli/serve.py")
# Used if they are installed; a message says so if they are not.
OPTIONAL = {"bitsandbytes", "controlnet_aux"}
OPTIONAL_FOR_SERVING = {"torch"}  # for TorchScript
BENCHMARKS = {"onnx", "onnx-ir", "onnxscript", "wgpu"}  # of the extras dev and compilers


def declared(*extras: str) -> set[str]:
    """The distributions that pyproject.toml names as core dependencies and in `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def sources(*areas: str) -> Iterator[Path]:
    for area in areas:
        path = PACKAGE / area
        yield from [path] if path.is_file() else path.rglob("*.py")


def imported(files: Iterator[Path]) -> set[str]:
    """The distributions of all packages that `files` import, at their top or inside functions."""
    modules: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                modules.add(node.module.split(".")[0])
    foreign = modules - set(sys.stdlib_module_names) - {"mlc_controlnet"} - OPTIONAL
    owners = packages_distributions()
    return {canonicalize_name(owners.get(module, [module])[0]) for module in foreign}


@pytest.mark.parametrize(
    ("areas", "extras"),
    [
        (DRAWING, ()),
        (TRAINING, ("train",)),
        (SERVING, ("annotators", "serve")),
        (("",), ("annotators", "compile", "serve", "train")),
    ],
    ids=["drawing", "training", "serving", "everything"],
)
def test_what_is_imported_is_declared(areas: tuple[str, ...], extras: tuple[str, ...]) -> None:
    left_out = BENCHMARKS if areas == ("",) else OPTIONAL_FOR_SERVING if areas == SERVING else set()
    assert imported(sources(*areas)) - declared(*extras) - left_out == set()


def test_an_extra_declares_a_package_in_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions: dict[str, set[str]] = {}
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        for text in texts:
            requirement = Requirement(text)
            versions.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
