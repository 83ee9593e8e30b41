"""The repository's own rules: who may import whom, and what the top level holds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlc_controlnet"

# A layer may import itself and the layers before it.
LAYERS = (
    {"__init__", "errors", "files", "locations", "machine", "plot_themes"},
    {"components", "config", "images"},
    {"bundle"},
    {"runtime", "checkpoint"},
    {"capture", "train"},
    {"kernels", "passes", "toolchain"},
    {"compile", "export", "site"},
    {"parity", "tuning"},
    {"build"},
    {"bench"},
    {"cli", "__main__", "models"},
)
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def area(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_areas(source: Path) -> set[str]:
    names = (name.split(".") for name in imports(source) if name.startswith("mlc_controlnet."))
    return {parts[1] for parts in names if (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()}


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: str(s.relative_to(PACKAGE)))
def test_dependencies_point_one_way(source: Path) -> None:
    layer_of = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
    depth = layer_of[area(source)]
    too_high = {name for name in imported_areas(source) if layer_of[name] > depth}
    assert not too_high, f"{source.relative_to(ROOT)} imports {too_high}, which lie above it"


@pytest.mark.parametrize("source", [s for s in SOURCES if area(s) == "runtime"], ids=lambda s: s.name)
def test_runtime_knows_bundles_only(source: Path) -> None:
    assert imported_areas(source) <= {
        "runtime",
        "bundle",
        "images",
        "errors",
        "files",
        "config",
        "components",
        "machine",
    }
    assert not {"torch", "diffusers", "transformers"} & {name.split(".")[0] for name in imports(source)}


@pytest.mark.parametrize("source", [s for s in SOURCES if area(s) == "train"], ids=lambda s: s.name)
def test_training_never_imports_tvm(source: Path) -> None:
    assert "tvm" not in {name.split(".")[0] for name in imports(source)}
    allowed = {"train", "checkpoint", "images", "errors", "files", "locations", "machine", "plot_themes"}
    assert imported_areas(source) <= allowed


@pytest.mark.parametrize("source", [s for s in SOURCES if area(s) == "images"], ids=lambda s: s.name)
def test_pictures_need_neither_torch_nor_tvm(source: Path) -> None:
    """Training and drawing both prepare pictures with it, each without the packages of the other."""
    assert imported_areas(source) <= {"images", "errors"}
    assert not {"torch", "diffusers", "transformers", "tvm"} & {name.split(".")[0] for name in imports(source)}


def test_every_layer_names_something_that_exists() -> None:
    for name in set().union(*LAYERS):
        assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file(), name
