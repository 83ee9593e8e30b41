"""The capacity of a CPU's vector registers. Sizes are those of AVX2; SSE and wasm need two registers for each."""

from mlc_controlnet.kernels.integers import ceil_div

VECTOR = 16  # float32 numbers in a micro-tile's row: two registers
REGISTER = 8  # float32 numbers in one
ACCUMULATORS = 12  # of sixteen registers; the rest are for operands


def registers(numbers: int) -> int:
    """Count the registers that a row of `numbers` fills."""
    return ceil_div(numbers, REGISTER)
