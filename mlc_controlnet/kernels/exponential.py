"""Exponentials to base 2, which is what processors and GPUs compute.

GPUs have an instruction for exp2. For processors LLVM calls libm once per lane, which takes an order of magnitude
longer than the vector arithmetic of `exp2` here.
"""

import math
from typing import Any

from tvm.script import tirx as T

LOG2_E = math.log2(math.e)  # exp(x) = exp2(x log2 e)
DEGREE = 7  # Taylor's remainder on [-1/2, 1/2]: 5e-9, a tenth of float32's rounding
LOWEST_EXPONENT = -126.0  # the least of a normal float32; below it the result stays at 2^-126, 0 for a softmax
HIGHEST_EXPONENT = 127.0


def exp2(x: Any, lanes: int) -> Any:
    """Compute 2^x = 2^n 2^f with n = floor(x + 1/2): f's polynomial times a float built from n's bits."""

    def all_lanes(number: Any) -> Any:
        return T.Broadcast(number, lanes) if lanes > 1 else number

    floats = "float32" if lanes == 1 else f"float32x{lanes}"
    integers = "int32" if lanes == 1 else f"int32x{lanes}"
    x = T.max(T.min(x, all_lanes(T.float32(HIGHEST_EXPONENT))), all_lanes(T.float32(LOWEST_EXPONENT)))
    n = T.floor(x + all_lanes(T.float32(0.5)))
    f = x - n
    power = all_lanes(T.float32(math.log(2) ** DEGREE / math.factorial(DEGREE)))
    for k in range(DEGREE - 1, -1, -1):
        power = power * f + all_lanes(T.float32(math.log(2) ** k / math.factorial(k)))
    exponent_bits = (T.Cast(integers, n) + all_lanes(T.int32(127))) << all_lanes(T.int32(23))
    return power * T.reinterpret(floats, exponent_bits)
