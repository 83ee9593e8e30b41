# mypy: disable-error-code="no-untyped-def, valid-type"
"""Layer norm for processors: a row, which stays in the first-level cache, is read three times, in vectors."""

import math

from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.kernels.registers_cpu import Registers
from mlc_controlnet.kernels.schedule_elementwise_cpu import WORTH_A_THREAD
from mlc_controlnet.kernels.vectors import neighbours, spread, sum_of, vector_of


def build(norm: LayerNorm, registers: Registers) -> tirx.PrimFunc:
    """See `layer_norm` for its parameters."""
    values = norm.rows * norm.width
    lanes = math.gcd(2 * registers.lanes, norm.width)
    steps = norm.width // lanes
    vector = vector_of("float32", lanes)
    rows = T.parallel if values >= WORTH_A_THREAD else T.serial

    @T.prim_func(s_tir=True, private=True)
    def layer_norm(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.width,), norm.dtype),
        beta: T.Buffer((norm.width,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for row in rows(norm.rows):
            with T.sblock("layer_norm"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), norm.dtype, data=x.data)
                y_flat = T.decl_buffer((values,), norm.dtype, data=y.data)
                total = T.sblock_alloc_buffer((1,), vector, scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector, scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                first: T.let[T.int32] = row * norm.width

                total[0] = spread(T.float32(0), lanes)
                for n in T.serial(steps):
                    total[0] = total[0] + T.Cast(vector, x_flat[neighbours(first + n * lanes, lanes)])
                mean[0] = sum_of(total[0], lanes) / T.float32(norm.width)

                total[0] = spread(T.float32(0), lanes)
                for n in T.serial(steps):
                    deviation[0] = T.Cast(vector, x_flat[neighbours(first + n * lanes, lanes)]) - spread(mean[0], lanes)
                    total[0] = total[0] + deviation[0] * deviation[0]
                scale[0] = T.float32(1) / T.sqrt(
                    sum_of(total[0], lanes) / T.float32(norm.width) + T.float32(norm.epsilon)
                )

                for n in T.serial(steps):
                    deviation[0] = T.Cast(vector, x_flat[neighbours(first + n * lanes, lanes)]) - spread(mean[0], lanes)
                    y_flat[neighbours(first + n * lanes, lanes)] = T.Cast(
                        vector_of(norm.dtype, lanes),
                        deviation[0] * spread(scale[0], lanes) * T.Cast(vector, gamma[neighbours(n * lanes, lanes)])
                        + T.Cast(vector, beta[neighbours(n * lanes, lanes)]),
                    )

    return layer_norm
