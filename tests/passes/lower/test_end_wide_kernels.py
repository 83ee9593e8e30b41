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
