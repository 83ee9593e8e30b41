import dataclasses

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.target import Target

from mlc_controlnet.kernels import flash_attention_tile
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.matmul_tile import Product, list_tiles, tile_of
from mlc_controlnet.kernels.tunable import Operation
from mlc_controlnet.kernels.tunable_kernels import VERSIONS, tunable_of
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS, measure_kernels
from mlc_controlnet.tuning.reference import make_reference
from tests.kernels.webgpu_device import run_on_webgpu
from tests.tuning.operations import LLVM, OPERATION, WEBGPU, make_convolution, make_finished, make_linear

V3 = Target({"kind": "llvm", "mcpu": "x86-64-v3", "vector-width": 256, "num-cores": 1})


def test_a_key_is_of_the_operation_and_nothing_else() -> None:
    """The golden key: python -c 'from tests.tuning.operations import OPERATION; print(OPERATION.key)'."""
    assert OPERATION.key == "45778e699efd6fd0"
    assert Operation(**dataclasses.asdict(OPERATION)).key == OPERATION.key
    others = [
        dataclasses.replace(OPERATION, version=2),
        dataclasses.replace(OPERATION, axes=(1, 16, 48, 64)),
        dataclasses.replace(OPERATION, form=("weights [K, N]",)),
        dataclasses.replace(OPERATION, params=("float16[16, 32]", "float32[16, 48]")),
    ]
    assert len({OPERATION.key, *(other.key for other in others)}) == 5


def test_a_function_has_the_same_key_under_any_name() -> None:
    function = make_linear(16)["NT_matmul"]
    renamed = make_linear(16)["NT_matmul"].with_attr("global_symbol", "something_else")
    keys = [tunable_of(one, LLVM).operation.key for one in (function, renamed, make_linear(24)["NT_matmul"])]
    assert keys[0] == keys[1] != keys[2]


FUNCTIONS = {"matmul": make_linear(16, columns=64)["NT_matmul"], "convolution": make_convolution()}
ON_PROCESSOR = FUNCTIONS | {"winograd": make_convolution(32, 64, (16, 32))}


@pytest.mark.parametrize(
    "name,target", [*((name, V3) for name in ON_PROCESSOR), *((name, WEBGPU) for name in FUNCTIONS)], ids=str
)
def test_the_space_has_the_choice_of_the_rules(name: str, target: Target) -> None:
    tunable = tunable_of(ON_PROCESSOR[name], target)
    assert tunable is not None and tunable.operation.kernel in VERSIONS and tunable.operation.kernel.startswith(name)
    assert tunable.chosen in tunable.space()
    assert len(tunable.space()) > 5


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_every_decision_of_a_processor_computes_the_same(name: str) -> None:
    function = ON_PROCESSOR[name]
    tunable, reference = tunable_of(function, V3), make_reference(function, V3)
    space = tunable.space()
    for decisions in (tunable.chosen, *space[:: max(1, len(space) // 6)][:3]):
        kernel = tunable.schedule(decisions)
        library = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target=V3)
        tensors = [tvm.runtime.tensor(value) for value in reference.arguments]
        library["main"](*tensors)
        assert reference.decibels(tensors[-1].numpy()) > 100, decisions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_decisions_of_a_gpu_stay_within_its_limits_and_compute_the_same(name: str, tmp_path) -> None:
    function = FUNCTIONS[name]
    tunable, reference = tunable_of(function, WEBGPU), make_reference(function, V3)
    space = tunable.space()
    assert len(space) > 5
    for decisions in space[:: len(space) // 3][1:2]:  # a shader takes a software device seconds
        kernel = tunable.schedule(decisions)
        (facts,) = measure_kernels(tvm.IRModule({"main": kernel}), WEBGPU)
        assert not list(facts.violations()) and facts.workgroup_bytes <= 16 * 1024
        names = [str(parameter.name) for parameter in kernel.params]
        output = np.full_like(reference.want, np.nan)
        run_on_webgpu([kernel], dict(zip(names, reference.arguments[:-1], strict=False)), {names[-1]: output}, tmp_path)
        assert reference.decibels(output) > 100, decisions


FINISHED = ["attention", "layer_norm", "group_norm"]


@pytest.mark.parametrize("target", [V3, WEBGPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_kernel_of_the_rules_decision_is_the_kernel_that_it_was(name: str, target: Target) -> None:
    kernel = make_finished(name, target)
    tunable = tunable_of(kernel, target)
    assert tunable is not None and tunable.operation.kernel in VERSIONS and tunable.operation.kernel.startswith(name)
    assert tunable.chosen in tunable.space() and len(tunable.space()) > 3
    tvm.ir.assert_structural_equal(tunable.schedule(tunable.chosen), kernel)
    other = next(one for one in tunable.space() if one != tunable.chosen)
    again = [tunable.schedule(other) for _ in range(2)]
    tvm.ir.assert_structural_equal(*again)
    assert again[0].script() != kernel.script() and tunable_of(again[0], target).operation == tunable.operation


@pytest.mark.parametrize("name", FINISHED)
def test_every_decision_of_a_finished_kernel_computes_the_same(name: str) -> None:
    kernel = make_finished(name, V3)
    tunable, reference = tunable_of(kernel, V3), make_reference(kernel, V3)
    space = tunable.space()
    for decisions in (tunable.chosen, *space[:: max(1, len(space) // 3)][:3]):
        made = tunable.schedule(decisions).with_attr("global_symbol", "main")
        library = tvm.compile(tvm.IRModule({"main": made}), target=V3)
        tensors = [tvm.runtime.tensor(value) for value in reference.arguments]
        library["main"](*tensors)
        assert reference.decibels(tensors[-1].numpy()) > 100, decisions


@pytest.mark.parametrize("name", FINISHED)
def test_decisions_of_a_finished_kernel_of_a_gpu_compute_the_same(name: str, tmp_path) -> None:
    kernel = make_finished(name, WEBGPU)
    tunable, reference = tunable_of(kernel, WEBGPU), make_reference(kernel, V3)
    other = [one for one in tunable.space() if one != tunable.chosen][-1]
    made = tunable.schedule(other)
    (facts,) = measure_kernels(tvm.IRModule({"main": made}), WEBGPU)
    assert not list(facts.violations()) and facts.workgroup_bytes <= 16 * 1024
    names = [str(parameter.name) for parameter in made.params]
    output = np.full_like(reference.want, np.nan)
    run_on_webgpu([made], dict(zip(names, reference.arguments[:-1], strict=False)), {names[-1]: output}, tmp_path)
    assert reference.decibels(output) > 100, other


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("head", [40, 64, 80, 160, 512])
def test_every_tile_of_attention_fits_workgroup_memory_and_256_threads(head: int, dtype: str) -> None:
    attention = Attention(2, 1024, 1024, 8, head, dtype, head**-0.5, layout="together")
    tiles = flash_attention_tile.list_tiles(attention)
    assert len(tiles) > 8
    for tile in tiles:
        assert tile.threads <= 256 and tile.workgroup_bytes(2 if dtype == "float16" else 4) <= 16 * 1024
        decided = flash_attention_tile.decisions_of(tile)
        assert flash_attention_tile.tile_of(attention, decided) == tile


def test_attention_that_shares_its_keys_has_nothing_to_decide() -> None:
    """Nobody knows how large their tensor is."""
    shared = Attention(1, 16, 8, 2, 16, "float32", 0.25, layout="shared")
    assert tunable_of(flash_attention(shared, V3), V3) is None


def test_every_tile_of_a_large_product_fits_workgroup_memory_and_divides_the_depth() -> None:
    for dtype in ("float32", "float16"):
        product = Product(1, 1024, 1280, 640, dtype)
        for tile in list_tiles(product):
            assert 16 <= tile.threads_x * tile.threads_y * tile.slices <= LIMITS["maxComputeInvocationsPerWorkgroup"]
            assert product.depth % tile.step == 0 and product.columns % tile.shape[1] == 0
            assert tile == tile_of(product, {k: v for k, v in dataclasses.asdict(tile).items() if k != "run"})


def test_what_is_no_product_has_nothing_to_decide() -> None:
    @tvm.script.tirx.prim_func(s_tir=True)
    def double(x: tvm.script.tirx.Buffer((16, 16), "float32"), y: tvm.script.tirx.Buffer((16, 16), "float32")):
        for i, j in tvm.script.tirx.grid(16, 16):
            with tvm.script.tirx.sblock("double"):
                a, b = tvm.script.tirx.axis.remap("SS", [i, j])
                y[a, b] = x[a, b] * tvm.script.tirx.float32(2)

    assert isinstance(double, tirx.PrimFunc)
    assert tunable_of(double, V3) is None and tunable_of(double, WEBGPU) is None
