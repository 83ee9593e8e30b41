import math
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import ir as I
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.exponential import exp2
from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials

LLVM = Target({"kind": "llvm", "num-cores": 2})


def in_vectors(x: tirx.Expr) -> dict[str, tirx.Expr]:
    """What the pass makes of each function of x."""
    log2_e, one = math.log2(math.e), T.float32(1)
    return {
        "exp": exp2(x * T.float32(log2_e), lanes=1),
        "sigmoid": one / (one + exp2(x * T.float32(-log2_e), lanes=1)),
    }


def make(apply: Callable[[tirx.Expr], tirx.Expr], dtype: str = "float32") -> tvm.IRModule:
    """y = apply(x) of 4096 numbers, in vectors."""

    @I.ir_module
    class Module:
        @T.prim_func(s_tir=True)
        def main(x: T.Buffer((4096,), dtype), y: T.Buffer((4096,), dtype)):
            for outer in range(256):
                for inner in T.vectorized(16):
                    with T.sblock("apply"):
                        v = T.axis.spatial(4096, outer * 16 + inner)
                        y[v] = apply(x[v])

    return Module


def run(mod: tvm.IRModule, x: np.ndarray) -> np.ndarray:
    y = tvm.runtime.tensor(np.zeros_like(x))
    tvm.compile(mod, LLVM)["main"](tvm.runtime.tensor(x), y)
    return y.numpy()


@pytest.mark.parametrize(
    "function,reference",
    [("exp", np.exp), ("sigmoid", lambda x: 1 / (1 + np.exp(-x)))],
    ids=["exp", "sigmoid"],
)
def test_result_is_float32_exact_to_a_few_units_in_the_last_place(function, reference) -> None:
    x = np.linspace(-80, 80, 4096, dtype="float32")
    want = reference(x.astype("float64"))
    after = UseVectorExponentials()(make(getattr(T, function)))
    tvm.ir.assert_structural_equal(after, make(lambda x: in_vectors(x)[function]))
    # x log2 e is rounded before the power: up to 115 * 2^-24 of relative error at |x| = 80
    np.testing.assert_allclose(run(after, x), want, rtol=1e-5)
    near_zero = np.abs(x) < 1
    np.testing.assert_allclose(run(after, x)[near_zero], want[near_zero], rtol=4e-7)


def test_extremes_saturate() -> None:
    x = np.zeros(4096, "float32")
    x[:4] = [-1e4, 1e4, -200, 200]
    np.testing.assert_allclose(run(UseVectorExponentials()(make(T.sigmoid)), x)[:4], [0, 1, 0, 1], atol=1e-30)


@pytest.mark.parametrize("function,dtype", [("exp", "float64"), ("tanh", "float32")])
def test_other_dtypes_and_functions_are_left_alone(function, dtype) -> None:
    before = make(getattr(T, function), dtype)
    tvm.ir.assert_structural_equal(UseVectorExponentials()(before), before)


def test_error_function_is_a_ratio_of_polynomials() -> None:
    x = np.linspace(-6, 6, 4096, dtype="float32")
    after = UseVectorExponentials()(make(T.erf))
    assert "T.erf" not in after.script()
    want = np.array([math.erf(number) for number in x])
    np.testing.assert_allclose(run(after, x), want, atol=5e-7)
