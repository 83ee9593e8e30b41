"""Sums of products of float16 numbers, in float16 over short runs, each run added to a float32 sum.

    run = sum over k of run of (left[k] / SCALE) * right[k]        # float16, fma
    sum = sum over runs of SCALE * run                             # float32

GPUs compute two float16 multiply-adds at a time (AMD: v_pk_fma_f16, NVIDIA: HFMA2), and a mixed one (v_fma_mix_f32)
adds a run, with its factor, to a float32 sum: 9/16 of an instruction a multiply-add for runs of 16, against 1.

Precision, of normal numbers and any depth from 320 to 11,520, against exact sums:

    run         1       4      8      16     32     64     all in float16
    dB       73.6      68     66      64     61     58     52 to 36

Overflow: a run of 16 cannot while max|left| max|right| <= 65504 SCALE / 16 = 16,376, as activations of 8,000 and
weights of 2; beyond that only where the runs of a sum cancel, because the result itself has to fit float16. A greater
factor would lose small operands to the subnormals of float16: with activations of 0.03 and weights of 0.0006 a factor
of 4 costs 11 dB (49 remain of 60), one of 32 costs 30. Powers of two are exact for all other numbers.
"""

from mlc_controlnet.kernels.integers import divisors

LONGEST_RUN = 16
SHORTEST_RUN = 4  # in shorter ones the addition to float32 costs what the packed products save
SCALE = 4.0


def run_length(dtype: str, depth: int) -> int | None:
    """Return how many products of operands of `dtype` to sum in float16: a divisor of `depth`; None: all in float32."""
    longest = divisors(depth, LONGEST_RUN)[-1]
    return longest if dtype == "float16" and longest >= SHORTEST_RUN else None
