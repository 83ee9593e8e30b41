"""A kernel binds no more buffers than every WebGPU device grants."""

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from mlc_controlnet.passes.lower.end_wide_kernels import BINDINGS, EndWideKernels

SHAPE = (3, 5)


def chosen_of(layers: int) -> tvm.IRModule:
    """Blend the outputs of layers one after another, as the second text encoder of Stable Diffusion XL chooses one."""
    builder = relax.BlockBuilder()
    xs = [relax.Var(f"x{index}", relax.TensorType(SHAPE, "float32")) for index in range(layers + 1)]
    gates = [relax.Var(f"g{index}", relax.TensorType((1,), "float32")) for index in range(layers)]
    with builder.function("main", [*xs, *gates]):
        with builder.dataflow():
            c = xs[0]
            for x, gate in zip(xs[1:], gates, strict=True):
                kept = builder.emit(relax.op.multiply(c, gate))
                c = builder.emit(relax.op.add(kept, builder.emit(relax.op.multiply(x, gate))))
            out = builder.emit_output(c)
        builder.emit_func_output(out)
    return relax.transform.AnnotateTIROpPattern()(relax.transform.LegalizeOps()(builder.get()))


def fused(mod: tvm.IRModule) -> tvm.IRModule:
    return tvm.transform.Sequential([relax.transform.FuseOps(), relax.transform.FuseTIR()])(mod)


def bindings(mod: tvm.IRModule) -> list[int]:
    """How many buffers each launch binds."""
    calls = [binding.value for block in mod["main"].body.blocks for binding in block.bindings]
    return [len(call.args[1].fields) + 1 for call in calls if isinstance(call, relax.Call)]


def test_a_long_chain_becomes_a_few_kernels_within_the_limit() -> None:
    before = chosen_of(layers=9)
    assert max(bindings(fused(before))) > BINDINGS
    after = bindings(fused(EndWideKernels()(before)))
    assert max(after) <= BINDINGS
    assert len(after) == 3  # c, three layers of two buffers each, and the result are eight


def test_the_result_stays_the_same() -> None:
    before = chosen_of(layers=9)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal([int(n) for n in p.ty.shape], np.float32) for p in before["main"].params]

    def run(mod: tvm.IRModule) -> np.ndarray:
        machine = relax.VirtualMachine(relax.build(mod, "llvm"), tvm.cpu())
        result: np.ndarray = machine["main"](*(tvm.runtime.tensor(array) for array in arrays)).numpy()
        return result

    np.testing.assert_array_equal(run(fused(EndWideKernels()(before))), run(before))


@pytest.mark.parametrize("layers", [1, 3])
def test_a_chain_within_the_limit_stays_one_kernel(layers: int) -> None:
    before = chosen_of(layers)
    after = EndWideKernels()(before)
    tvm.ir.assert_structural_equal(after, before)
    assert sum(isinstance(function, tirx.PrimFunc) for function in fused(after).functions.values()) == 1


def product_and_sums(sums: int, products: int = 1) -> tvm.IRModule:
    """Matrix products of which each has a bias, and is added to the one before, and as many sums more."""
    builder = relax.BlockBuilder()
    params: list[relax.Var] = []

    def param(*shape: int) -> relax.Var:
        params.append(relax.Var(f"p{len(params)}", relax.TensorType(shape, "float32")))
        return params[-1]

    products_of = [(param(3, 4), param(4, 5), param(5)) for _ in range(products)]
    rows = [param(*SHAPE) for _ in range(sums)]
    with builder.function("main", params):
        with builder.dataflow():
            layers = []
            for x, weight, bias in products_of:
                layers.append(builder.emit(relax.op.add(builder.emit(relax.op.matmul(x, weight)), bias)))
            out = layers[0]
            for other in (*layers[1:], *rows):
                out = builder.emit(relax.op.add(out, other))
            builder.emit_output(out)
        builder.emit_func_output(out)
    return relax.transform.AnnotateTIROpPattern()(relax.transform.LegalizeOps()(builder.get()))


def test_sums_after_a_product_begin_a_kernel_of_their_own_where_it_would_bind_too_much() -> None:
    before = product_and_sums(sums=5)
    assert bindings(fused(before)) == [9]
    assert bindings(fused(EndWideKernels()(before))) == [8, 3]


def test_two_products_are_not_counted_as_one_kernel() -> None:
    before = product_and_sums(sums=2, products=2)
    after = EndWideKernels()(before)
    tvm.ir.assert_structural_equal(after, before)
    assert max(bindings(fused(after))) <= BINDINGS
