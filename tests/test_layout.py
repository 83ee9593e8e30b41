"""The repository's own rules: who may import whom, what the package's top level holds, and no cycles of imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mlc_controlnet"

# A layer may import itself and the layers before it.
LAYERS = (
    {"__init__", "errors", "files", "instruction_sets", "locations", "machine", "notices", "plot_themes"},
    {"components", "config", "images"},
    {"bundle", "quantize"},
    {"runtime", "checkpoint"},
    {"capture", "train"},
    {"kernels", "passes", "toolchain"},
    {"compile", "export", "site"},
    {"parity", "calibration"},
    {"serve"},
    {"tuning"},  # its page for browsers stands behind the service's guard
    {"build"},
    {"add_controlnet"},
    {"bench"},
    {"cli", "__main__", "models"},
)
SOURCES = sorted(PACKAGE.rglob("*.py"))
DRAWERS = {"common", "core", "helper", "helpers", "lib", "misc", "shared", "support", "tools", "util", "utils"}


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
        "instruction_sets",
        "machine",
        "notices",
    }
    assert not {"torch", "diffusers", "transformers"} & {name.split(".")[0] for name in imports(source)}


@pytest.mark.parametrize("source", [s for s in SOURCES if area(s) == "train"], ids=lambda s: s.name)
def test_training_never_imports_tvm(source: Path) -> None:
    assert "tvm" not in {name.split(".")[0] for name in imports(source)}
    allowed = {"train", "checkpoint", "images", "errors", "files", "locations", "machine", "notices", "plot_themes"}
    assert imported_areas(source) <= allowed


@pytest.mark.parametrize("source", [s for s in SOURCES if area(s) == "images"], ids=lambda s: s.name)
def test_pictures_need_neither_torch_nor_tvm(source: Path) -> None:
    """Training and drawing both prepare pictures with it, each without the packages of the other."""
    assert imported_areas(source) <= {"images", "errors", "notices"}
    assert not {"torch", "diffusers", "transformers", "tvm"} & {name.split(".")[0] for name in imports(source)}


def test_every_layer_names_something_that_exists() -> None:
    for name in set().union(*LAYERS):
        assert (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file(), name


def test_every_part_of_the_package_has_a_layer() -> None:
    """The top level holds folders and a few modules, each of which LAYERS names, and nothing else."""
    data = {"py.typed", "THIRD_PARTY_LICENSES.txt"}
    parts = {path.name for path in PACKAGE.iterdir()} - {"__pycache__", *data}
    layered = {name if (PACKAGE / name).is_dir() else f"{name}.py" for name in set().union(*LAYERS)}
    assert parts == layered


def test_no_folder_or_module_is_a_drawer() -> None:
    roots = (PACKAGE, ROOT / "tests", ROOT / "web" / "src")
    ours = (path for root in roots for path in root.rglob("*") if "overlay" not in path.parts)  # names as in TVM's tree
    assert not [path for path in ours if path.stem in DRAWERS]


def modules() -> dict[str, Path]:
    """Module name -> file; a package is named without `__init__`."""
    return {
        ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): source for source in SOURCES
    }


def loaded_by(module: str, known: dict[str, Path]) -> set[str]:
    """Modules that Python loads when it loads `module`: what its own top level imports.

    Imports inside functions and under TYPE_CHECKING do not count. Importing a.b.c loads the packages a and a.b too, but
    a package never waits for its own parent, so parents of `module` do not count.
    """
    found: set[str] = set()

    def visit(statements: list[ast.stmt]) -> None:
        for node in statements:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found.update(name if name in known else node.module for name in names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                visit(node.body + node.orelse)
            elif isinstance(node, ast.Try):
                visit(node.body + node.orelse + node.finalbody)

    visit(ast.parse(known[module].read_text(encoding="utf-8")).body)
    parents = {name.rpartition(".")[0] for name in found}
    ours = (found | parents) & set(known)
    return {name for name in ours if not f"{module}.".startswith(f"{name}.")}


def find_cycle(imported: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, or an empty list."""
    done: set[str] = set()

    def search(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for name in sorted(imported[module]):
            if ring := search(name, [*path, module]):
                return ring
        done.add(module)
        return []

    return next((ring for module in sorted(imported) if (ring := search(module, []))), [])


def test_no_modules_import_each_other_in_a_ring() -> None:
    known = modules()
    assert find_cycle({module: loaded_by(module, known) for module in known}) == []


def test_a_ring_of_imports_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
