"""The matmul schedule against torch, as WGSL on a software WebGPU device, and where it must not fire."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from tvm import relax, te, tirx
from tvm.relax import transform

from mlc_controlnet.kernels.decoding import decode
from mlc_controlnet.kernels.matmul_tile import FINER_TILES, MatmulTile, decisions_of
from mlc_controlnet.kernels.schedule_matmul_gpu import MatrixProduct, tunable_matmul
from mlc_controlnet.parity.parity import signal_to_noise_db
from mlc_controlnet.passes.check.check_webgpu_limits import measure_kernels
from mlc_controlnet.passes.replace.use_gated_matmul import UseGatedMatmul
from mlc_controlnet.quantize.scheme import LINEAR, Scheme
from tests.kernels.webgpu_device import WEBGPU, build_wgsl, run_on_webgpu

GATE_DB = {"float32": 100, "float16": 60}  # of one operation


@dataclass(frozen=True)
class Case:
    activations: tuple[int, ...]  # [B, M, K] or [M, K]
    columns: int

    @property
    def weights(self) -> tuple[int, int]:
        return self.activations[-1], self.columns

    @property
    def output(self) -> tuple[int, ...]:
        return *self.activations[:-1], self.columns


CASES = {
    "whole tiles": Case((1, 64, 96), 128),
    "the text's 77 rows": Case((1, 77, 64), 96),
    "the text's 77 rows, 16 at a time": Case((1, 77, 64), 128),
    "few rows": Case((1, 10, 48), 16),
    "a depth that half a step divides": Case((1, 32, 40), 32),
    "a depth of one vector": Case((1, 32, 4), 32),
    "wide tiles": Case((1, 1000, 32), 512),
    "batch 2": Case((2, 24, 32), 48),
    "no batch": Case((40, 64), 64),
}


def fuse(case: Case, dtype: str = "float32", epilogue: bool = True) -> tirx.PrimFunc:
    """silu(x @ w + b) + r as the pass pipeline fuses it, or the product alone."""
    builder = relax.BlockBuilder()
    shapes = {"x": case.activations, "w": case.weights, "b": (case.columns,), "r": case.output}
    x, w, b, r = (relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in shapes.items())
    with builder.function("main", [x, w, b, r]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, w, out_dtype="float32"))
            if dtype != "float32":
                y = builder.emit(relax.op.astype(y, dtype))
            if epilogue:
                y = builder.emit(relax.op.add(relax.op.nn.silu(relax.op.add(y, b)), r))
            out = builder.emit_output(y)
        builder.emit_func_output(out)
    return _lowered(builder.get())


def _lowered(mod: tvm.IRModule) -> tirx.PrimFunc:
    passes = [
        transform.Normalize(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    with WEBGPU:
        return _product_of(tvm.transform.Sequential(passes)(mod))


def _product_of(mod: tvm.IRModule) -> tirx.PrimFunc:
    (func,) = (f for f in mod.functions.values() if isinstance(f, tirx.PrimFunc))
    return func


def schedule(func: tirx.PrimFunc) -> tirx.PrimFunc | None:
    with WEBGPU:
        scheduled = MatrixProduct().apply(func, WEBGPU, False)
    return None if scheduled is None else scheduled.mod["main"].with_attr("tirx.is_scheduled", True)


@pytest.mark.parametrize("epilogue", [True, False], ids=["with bias, silu and residual", "alone"])
@pytest.mark.parametrize("name", CASES)
def test_a_software_device_computes_what_torch_computes(name: str, epilogue: bool, tmp_path: Path) -> None:
    case = CASES[name]
    func = schedule(fuse(case, epilogue=epilogue))
    assert func is not None
    rng = np.random.default_rng(0)
    x, w, b, r = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in (case.activations, case.weights, (case.columns,), case.output)
    )
    wanted = torch.tensor(x).double() @ torch.tensor(w).double()
    if epilogue:
        wanted = F.silu(wanted + torch.tensor(b)) + torch.tensor(r)
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(case.output, np.float32)
    values = {"x": x, "w": w, "b": b, "r": r}
    run_on_webgpu([func], {name: values[name] for name in inputs}, {output: got}, tmp_path)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [32, 77])
def test_what_is_multiplied_may_be_added_to_the_product(rows: int, dtype: str, tmp_path: Path) -> None:
    builder = relax.BlockBuilder()
    x, w = (relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in (("x", (1, rows, 64)), ("w", (64, 64))))
    with builder.function("main", [x, w]):
        with builder.dataflow():
            y = builder.emit(relax.op.astype(relax.op.matmul(x, w, out_dtype="float32"), dtype))
            out = builder.emit_output(relax.op.add(y, x))
        builder.emit_func_output(out)
    func = schedule(_lowered(builder.get()))
    assert func is not None
    rng = np.random.default_rng(0)
    values = {"x": rng.standard_normal((1, rows, 64)).astype(dtype), "w": rng.standard_normal((64, 64)).astype(dtype)}
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros((1, rows, 64), dtype)
    run_on_webgpu([func], {name: values[name] for name in inputs}, {output: got}, tmp_path)
    left, right = (value.astype(np.float64) for value in values.values())
    assert signal_to_noise_db(left @ right + left, got) > GATE_DB[dtype]


@pytest.mark.parametrize("name", CASES)
def test_half_precision_keeps_sixty_decibels(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    func = schedule(fuse(case, "float16", epilogue=False))
    assert func is not None
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float16) for shape in (case.activations, case.weights))
    *inputs, output = (str(p.name) for p in func.params)
    got = np.zeros(case.output, np.float16)
    run_on_webgpu([func], {name: {"x": x, "w": w}[name] for name in inputs}, {output: got}, tmp_path)
    assert signal_to_noise_db(x.astype(np.float64) @ w.astype(np.float64), got) > GATE_DB["float16"]


@pytest.mark.parametrize(
    ("dtype", "tile"), [(dtype, tile) for dtype, tiles in FINER_TILES.items() for tile, _ in tiles], ids=str
)
def test_finer_tiles_compute_the_same(dtype: str, tile: MatmulTile, tmp_path: Path) -> None:
    """Of a product that is too small for the rules to choose most of them; the last tile of rows is filled in part."""
    case = Case((1, 30, 64), 128)
    tunable = tunable_matmul(fuse(case, dtype, epilogue=False), WEBGPU)
    assert tunable is not None
    decisions = {**decisions_of(tile), "step": tile.step or 16 * tile.slices}
    kernel = tunable.schedule(decisions).with_attr("tirx.is_scheduled", True)
    rng = np.random.default_rng(0)
    values = {"x": rng.standard_normal(case.activations), "w": rng.standard_normal(case.weights)}
    values = {name: value.astype(dtype) for name, value in values.items()}
    *inputs, output = (str(p.name) for p in kernel.params)
    got = np.zeros(case.output, dtype)
    run_on_webgpu([kernel], {name: values[name] for name in inputs}, {output: got}, tmp_path)
    assert signal_to_noise_db(values["x"].astype(np.float64) @ values["w"].astype(np.float64), got) > GATE_DB[dtype]


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "in float16"])
def test_packed_weights_keep_tiles_that_decode_them_for_more_rows(packs: bool) -> None:
    scheme = Scheme(LINEAR, 8, 64, rows=64, columns=320)
    words = te.placeholder([scheme.words], "uint32", "words")
    table = te.placeholder(scheme.table_shape, "float16", "table")
    x, plain = te.placeholder([1, 4096, 64], "float16", "x"), te.placeholder([64, 320], "float16", "weight")
    weight = decode(words, table, scheme, (64, 320)) if packs else plain
    k = te.reduce_axis((0, 64), "k")

    def term(batch: tirx.Var, m: tirx.Var, n: tirx.Var) -> tirx.Expr:
        return te.sum(x[batch, m, k].astype("float32") * weight[k, n].astype("float32"), axis=k)

    operands = [x, words, table] if packs else [x, plain]
    function = te.create_prim_func([*operands, te.compute((1, 4096, 320), term, "product")])
    tunable = tunable_matmul(function, WEBGPU)
    assert tunable is not None
    assert tunable.chosen["threads_y"] * tunable.chosen["rows"] == (64 if packs else 32)


def gated(shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> tirx.PrimFunc | None:
    """GEGLU, scheduled."""
    builder = relax.BlockBuilder()
    x, w, b = (relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in shapes.items())
    with builder.function("main", [x, w, b]):
        with builder.dataflow():
            y = builder.emit(relax.op.matmul(x, w, out_dtype="float32"))
            y = builder.emit(relax.op.add(relax.op.astype(y, dtype) if dtype == "float16" else y, b))
            halves = builder.emit(relax.op.split(y, 2, axis=-1))
            out = builder.emit_output(relax.op.multiply(halves[0], relax.op.nn.gelu(halves[1])))
        builder.emit_func_output(out)
    return schedule(_product_of(UseGatedMatmul()(transform.Normalize()(builder.get()))))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [64, 16])
def test_a_gated_product_is_geglu(rows: int, dtype: str, tmp_path: Path) -> None:
    shapes = {"x": (1, rows, 48), "w": (48, 128), "b": (128,)}
    func = gated(shapes, dtype)
    assert func is not None
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    x, w, b = (torch.tensor(value).float() for value in values.values())
    value, gate = (x @ w + b).chunk(2, dim=-1)
    got = np.zeros((1, rows, 64), dtype)
    x_name, w_name, b_name, output = (str(p.name) for p in func.params)
    inputs = {x_name: values["x"], w_name: values["w"], b_name: values["b"]}
    run_on_webgpu([func], inputs, {output: got}, tmp_path)
    assert signal_to_noise_db((value * F.gelu(gate)).numpy(), got) > GATE_DB[dtype]


def test_the_accumulators_of_a_gated_product_are_vectors_to_the_end() -> None:
    func = gated({"x": (1, 64, 48), "w": (48, 128), "b": (128,)})
    assert func is not None
    wgsl = build_wgsl(func)
    assert re.search(r"var gated_matmul_local : array<vec4<f32>, \d+>", wgsl)
    assert "gate_ptr : array<vec4<f32>>" in wgsl
    assert len(re.findall(r"gate_ptr\[.*\] = ", wgsl)) == 4  # one a row: nothing is computed lane by lane


LAYOUTS = ["mk,kn", "km,kn", "mk,nk", "km,nk"]


def product(layouts: str, sizes: dict[str, int], dtype: str = "float32") -> tirx.PrimFunc | None:
    """a and b, whose axes are in this order, to float32 c [1, m, n]; scheduled."""
    left, right = layouts.split(",")
    a = te.placeholder([1, *(sizes[axis] for axis in left)], dtype, "a")
    b = te.placeholder([sizes[axis] for axis in right], dtype, "b")
    k = te.reduce_axis((0, sizes["k"]), "k")

    def term(batch: tirx.Var, m: tirx.Var, n: tirx.Var) -> tirx.Expr:
        at = {"m": m, "n": n, "k": k}
        x, y = a[(batch, *(at[axis] for axis in left))], b[tuple(at[axis] for axis in right)]
        return te.sum(x.astype("float32") * y.astype("float32"), axis=k)

    return schedule(te.create_prim_func([a, b, te.compute((1, sizes["m"], sizes["n"]), term, "c")]))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layouts", LAYOUTS)
@pytest.mark.parametrize("m", [40, 30])
def test_either_operand_may_have_k_outermost(layouts: str, m: int, dtype: str, tmp_path: Path) -> None:
    """As pictures do, [C, h w], where tokens have it innermost."""
    sizes = {"m": m, "n": 32, "k": 64}  # four slices, in float32 those of 30 rows
    func = product(layouts, sizes, dtype)
    assert func is not None
    left, right = layouts.split(",")
    rng = np.random.default_rng(0)
    a = rng.standard_normal([1, *(sizes[axis] for axis in left)], dtype=np.float32).astype(dtype)
    b = rng.standard_normal([sizes[axis] for axis in right], dtype=np.float32).astype(dtype)
    got = np.zeros((1, m, 32), np.float32)
    run_on_webgpu([func], {"a": a, "b": b}, {"c": got}, tmp_path)
    wanted = np.einsum(f"z{left},{right}->zmn", a.astype(np.float32), b.astype(np.float32))
    assert signal_to_noise_db(wanted, got) > GATE_DB[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layouts", LAYOUTS)
def test_memory_is_read_and_written_in_vectors(layouts: str, dtype: str) -> None:
    for columns, most in ((1280, 5), (320, 6)):  # the sixth: sums of slices
        func = product(layouts, {"m": 4096, "n": columns, "k": 320}, dtype)
        assert func is not None
        arrays = re.findall(r"var<(?:storage|workgroup).*> \w+ : array<(\w+)", build_wgsl(func))
        assert set(arrays) == {"vec4"}
        assert 5 <= len(arrays) <= most


def test_sums_of_slices_take_the_place_of_an_operand() -> None:
    """So that steps are as long as without slices: four of 16x32 sums, beside 16x32 or 32x32 numbers of an operand."""
    func = product("mk,kn", {"m": 32, "n": 32, "k": 64})
    assert func is not None
    (facts,) = measure_kernels(tvm.IRModule({"main": func}), WEBGPU)
    assert facts.threads == 64
    assert facts.workgroup_bytes <= 4 * (4 * 16 * 32 + 32 * 32)


def test_half_precision_is_summed_in_runs_that_are_added_in_single() -> None:
    func = schedule(fuse(Case((1, 4096, 320), 1280), "float16"))
    assert func is not None
    wgsl = build_wgsl(func)
    assert re.search(r"var<workgroup> x\w*_shared : array<vec4<f16>", wgsl)
    runs, sums = (re.search(rf"var (matmul\w*) : array<vec4<{kind}>, 8>", wgsl) for kind in ("f16", "f32"))
    assert runs is not None
    assert sums is not None
    assert len(re.findall(rf"{runs[1]}\[\di\] = fma\(", wgsl)) == 32  # four of k, four rows, two vectors
    assert len(re.findall(rf"{sums[1]}\[\di\] = fma\(vec4<f32>\({runs[1]}\[\di\]\)", wgsl)) == 8


def test_a_micro_tile_lives_in_registers() -> None:
    """An array that a loop variable indexes has to lie in memory."""
    func = schedule(fuse(CASES["whole tiles"]))
    assert func is not None
    wgsl = build_wgsl(func)
    registers = re.findall(r"var (\w+_local(?:_rf)?) : array<", wgsl)
    assert len(registers) == 4  # accumulators, their sum with other slices', activations, weights
    for name in registers:
        assert not re.search(rf"{name}\[(?!\d+i\])", wgsl)


def test_neighbouring_threads_write_neighbouring_columns() -> None:
    func = schedule(fuse(CASES["whole tiles"], epilogue=False))
    assert func is not None
    (address,) = re.findall(r"\bmatmul_ptr\[(.*)\] =", build_wgsl(func))
    assert address.endswith("+ i32(threadIdx.x))")


def test_rows_of_workgroup_memory_lie_an_odd_number_of_vectors_apart() -> None:
    """Else the rows that threads read at once would share banks."""
    func = schedule(fuse(Case((1, 4096, 320), 320), epilogue=False))
    assert func is not None
    wgsl = build_wgsl(func)
    assert "(i32(threadIdx.y) * 5i)" in wgsl  # a step of 16 is four vectors, and one lies between


@pytest.mark.parametrize("rows", [1, 7])
def test_a_few_rows_are_left_to_other_rules(rows: int) -> None:
    assert schedule(fuse(Case((1, rows, 64), 64))) is None


def test_columns_that_no_tile_divides_are_left_to_other_rules() -> None:
    assert schedule(fuse(Case((1, 64, 64), 12))) is None


def test_a_depth_that_is_no_multiple_of_a_vector_is_left_to_other_rules() -> None:
    assert schedule(fuse(Case((1, 64, 41), 64))) is None
