"""The source tree that the runtime is compiled from."""

import shutil
from pathlib import Path

import pytest

from mlc_controlnet.toolchain import recipe
from mlc_controlnet.toolchain.wasm_runtime import RuntimeInputs, installed_inputs


@pytest.fixture
def inputs() -> RuntimeInputs:
    return installed_inputs()


def lay_out(tree: Path, inputs: RuntimeInputs) -> None:
    recipe.lay_out_tree(tree, inputs.tvm, inputs.tvm_ffi, inputs.overlay)


def test_every_overlay_file_says_what_it_replaces(inputs: RuntimeInputs) -> None:
    for path in inputs.overlay.rglob("*"):
        if path.is_file():
            assert path.read_text(encoding="utf-8").startswith("// Replaces "), path


def test_the_overlay_lies_over_the_wheels_sources(inputs: RuntimeInputs, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    lay_out(tree, inputs)
    replaced = "src/runtime/file_utils.cc"
    assert (tree / replaced).read_bytes() == (inputs.overlay / replaced).read_bytes()
    kept = "src/runtime/vm/vm.cc"
    assert (tree / kept).read_bytes() == (inputs.tvm / kept).read_bytes()


def test_what_is_left_out_is_empty_and_every_unit_is_there(inputs: RuntimeInputs, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    lay_out(tree, inputs)
    assert not any((tree / path).stat().st_size for path in recipe.LEFT_OUT)
    units = recipe.units(tree, inputs.zig.lib)
    assert all(unit.source.stat().st_size for unit in units)
    assert len({unit.object_name for unit in units}) == len(units)


def test_a_tvm_that_no_longer_includes_a_left_out_file_is_refused(inputs: RuntimeInputs, tmp_path: Path) -> None:
    other_tvm = tmp_path / "tvm"
    for folder in ("src", "include", "web/emcc"):
        shutil.copytree(inputs.tvm / folder, other_tvm / folder)
    pack = other_tvm / "web/emcc/wasm_runtime.cc"
    pack.write_text(pack.read_text(encoding="utf-8").replace("rpc_session.cc", "session.cc"), encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"src/runtime/rpc/rpc_session\.cc: .* does not include it"):
        recipe.lay_out_tree(tmp_path / "tree", other_tvm, inputs.tvm_ffi, inputs.overlay)
