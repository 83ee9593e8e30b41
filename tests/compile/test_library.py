import re

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

from mlc_controlnet.compile.library import (
    OverLimits,
    compile_library,
    for_instruction_set,
    generate_code,
    plan_library,
    write_library,
)
from mlc_controlnet.config import BuildConfig


@I.ir_module
class Huge:
    """One kernel on 256 MiB."""

    @R.function
    def double(x: R.Tensor((64, 1024, 1024), "float32"), w: R.Tensor((1,), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.add(x, w)
            R.output(out)
        return out


def test_a_kernel_over_webgpus_limits_is_named_with_value_limit_and_remedy(tmp_path) -> None:
    config = BuildConfig("huge", "webgpu", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    with pytest.raises(OverLimits) as raised:
        compile_library(Huge, "huge", "float32", config, tmp_path)
    assert raised.value.subject == "the float32 library for webgpu"
    assert raised.value.components == ("double",)
    assert raised.value.got.startswith("double: add_kernel: maxStorageBufferBindingSize is 268435456, the limit is 134")
    assert "--height" in raised.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("components", "tiles"),
    [(["vae_decoder_768x768", "vae_encoder_768x768"], True), (["vae_decoder"], True), (["vae_decoder", "unet"], False)],
)
def test_a_vae_that_is_too_large_can_work_in_tiles(components: list[str], tiles: bool) -> None:
    error = OverLimits("library", ValueError("1 demand\n  kernel: too large\n"), components, [(512, 512)])
    assert ("--vae-tiling" in error.remedy) == tiles
    assert "--height 512 --width 512" in error.remedy


@pytest.mark.parametrize("shipped", [True, False], ids=["to be shipped", "to be compared only"])
def test_a_processor_has_no_such_limits(tmp_path, shipped: bool) -> None:
    config = BuildConfig("huge", "llvm", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    library, description = compile_library(Huge, "huge", "float32", config, tmp_path, shipped)
    assert library.is_file()
    assert description.launches == {"double": 1}
    x, w = np.full((64, 1024, 1024), 2, np.float32), np.ones(1, np.float32)
    double = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())["double"]
    out = double(tvm.runtime.tensor(x), tvm.runtime.tensor(w)).numpy()
    assert out.shape == x.shape and (out == 3).all()


@I.ir_module
class Sum:
    """Two vectors, added."""

    @R.function
    def add(x: R.Tensor((4096,), "float32"), w: R.Tensor((4096,), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.add(x, w)
            R.output(out)
        return out


@pytest.mark.parametrize(
    ("instruction_set", "machine", "instruction"),
    [("x86-64-v4", 62, "zmm"), ("x86-64-v3", 62, "ymm"), ("aarch64", 183, ".4s")],
)
def test_a_library_for_another_processor_is_linked_and_has_its_vectors(
    tmp_path, instruction_set, machine, instruction
) -> None:
    config = BuildConfig("sum", "llvm", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    planned = plan_library(Sum, "float32", config, instruction_set)
    assembly = generate_code(planned.module, planned.target).mod.imports[0].inspect_source("s")
    assert instruction in assembly
    path, library = write_library(planned, "sum", tmp_path)
    assert (path.name, library.instruction_set) == (f"sum-float32-{instruction_set}.so", instruction_set)
    header = path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == machine


@I.ir_module
class Product:
    """A product of two matrices: its sums are of products, which some processors contract."""

    @R.function
    def multiply(x: R.Tensor((64, 64), "float32"), w: R.Tensor((64, 64), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.matmul(x, w)
            R.output(out)
        return out


def test_the_libraries_for_a_browsers_processor_share_a_plan_and_differ_in_their_instructions(tmp_path) -> None:
    config = BuildConfig("product", "webgpu", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    planned = plan_library(Product, "float32", config, "wasm-simd128")
    assembly = {}
    for name in ("wasm-simd128", "wasm-relaxed-simd"):
        one = for_instruction_set(planned, name)
        assembly[name] = generate_code(one.module, one.target).mod.imports[0].inspect_source("s")
        path, library = write_library(one, "product", tmp_path)
        assert path.read_bytes()[:4] == b"\0asm"
        assert (library.device, library.instruction_set) == ("wasm", name)
        assert library.file == path.name == f"product-float32-{name}.wasm"
        assert library.required_limits == {} and library.launches == {"multiply": 1}
    assert all("f32x4.mul" in text or "relaxed_madd" in text for text in assembly.values())
    assert "f32x4.relaxed_madd" in assembly["wasm-relaxed-simd"]
    assert "relaxed" not in assembly["wasm-simd128"]


@I.ir_module
class Branches:
    """Two functions with a product in common; `long` adds to a sum that nobody reads afterwards, in place."""

    @R.function
    def long(x: R.Tensor((64, 64), "float32"), w: R.Tensor((64, 64), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            product = R.matmul(x, w)
            kept = R.nn.softmax(product, axis=1)
            again = R.nn.softmax(kept, axis=1)
            more = R.matmul(again, w)
            total = R.add(more, kept)
            out = R.matmul(total, w)
            R.output(out)
        return out

    @R.function
    def short(x: R.Tensor((64, 64), "float32"), w: R.Tensor((64, 64), "float32")):
        R.func_attr({"num_input": 1})
        with R.dataflow():
            out = R.matmul(x, w)
            R.output(out)
        return out


def test_the_kernels_of_each_function_are_told_in_the_order_of_their_launch(tmp_path) -> None:
    config = BuildConfig("branches", "webgpu", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    planned = plan_library(Branches, "float32", config)
    kernels = {entry.function: entry.kernels for entry in planned.kernels}
    [wgsl] = [one.inspect_source() for one in generate_code(planned.module, planned.target).mod.imports[0].imports]
    assert {*kernels["long"], *kernels["short"]} == set(re.findall(r"fn (\w+_kernel\w*)\(", wgsl))
    assert any("in_place" in name for name in kernels["long"])  # these are made after the kernels were measured
    first, *others = kernels["long"]
    assert kernels["short"] == (first,)  # the product in common is launched first, and told once
    assert "softmax" in others[0] and first not in others


def test_a_processor_has_no_kernels_to_compile(tmp_path) -> None:
    config = BuildConfig("product", "llvm", ("float32",), out=tmp_path, tuning_db=tmp_path / "no-records")
    assert plan_library(Product, "float32", config).kernels == ()
