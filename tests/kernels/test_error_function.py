import math

import numpy as np
import tvm
from tvm import te

from mlc_controlnet.kernels.error_function import erf


def test_it_is_the_error_function_to_half_a_millionth() -> None:
    x = np.concatenate([np.linspace(-6, 6, 4001), [0.0, 1e-6, -1e-6, 1e4, -1e4]]).astype(np.float32)
    placeholder = te.placeholder(x.shape, "float32", "x")
    function = te.create_prim_func([placeholder, te.compute(x.shape, lambda i: erf(placeholder[i]), "y")])
    got = tvm.runtime.tensor(np.empty_like(x))
    tvm.compile(function, target="llvm")(tvm.runtime.tensor(x), got)
    wanted = [math.erf(float(value)) for value in x]
    np.testing.assert_allclose(got.numpy(), wanted, rtol=0, atol=5e-7)
