"""A 3x3 convolution of a picture that nearest upsampling doubles, as four convolutions of 2x2 taps of the small one.

Of the three rows that a tap of the large picture reads, two are the same row of the small one. Summing their weights
first leaves four of nine multiplications:

    even rows 2 y       w[0] x[y - 1] + (w[1] + w[2]) x[y]
    odd rows 2 y + 1    (w[0] + w[1]) x[y] + w[2] x[y + 1]

and columns alike. Phase 2 p + q is that of rows 2 y + p and columns 2 x + q.
"""

from tvm import te, tirx

from mlc_controlnet.kernels.convolution import STAGED

PHASES = 4
# The name of the block that sums weights. A GPU's schedule inlines it; a processor's brings it to the panel of weights.
SUMMED = "summed_taps"


def convolve_doubled(x: te.Tensor, weight: te.Tensor, dtype: str, share_pad: bool) -> te.Tensor:
    """[B, N, 2 h, 2 w] from x [B, C, h, w] and weight [C, 3, 3, N], padded by a pixel; `dtype` is that of the sums.

    share_pad: one padded picture for all phases, as processors write it out; else one each, which a workgroup of a GPU
    brings to its memory.
    """
    batch, channels, height, width = (int(extent) for extent in x.shape)
    out_channels = int(weight.shape[3])

    def pixel(b: tirx.Expr, c: tirx.Var, row: tirx.Expr, column: tirx.Expr) -> tirx.Expr:
        inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
        return tirx.if_then_else(inside, x[b, c, row, column], tirx.const(0, x.dtype))

    def summed(b: tirx.Var, c: tirx.Var, ky: tirx.Var, kx: tirx.Var, n: tirx.Var) -> tirx.Expr:
        # The middle row belongs to the second tap of even rows and to the first one of odd rows.
        row, column = ((ky + b // 2) % 2).astype(weight.dtype), ((kx + b) % 2).astype(weight.dtype)
        outer = weight[c, 2 * ky, 2 * kx, n] + column * weight[c, 2 * ky, 1, n]
        return outer + row * (weight[c, 1, 2 * kx, n] + column * weight[c, 1, 1, n])

    if share_pad:
        shape = (batch, channels, height + 2, width + 2)
        padded = te.compute(shape, lambda b, c, i, j: pixel(b, c, i - 1, j - 1), STAGED)
    else:
        shape = (batch * PHASES, channels, height + 1, width + 1)
        padded = te.compute(
            shape, lambda b, c, i, j: pixel(b // PHASES, c, i + b % PHASES // 2 - 1, j + b % 2 - 1), STAGED
        )
    weights = te.compute((batch * PHASES, channels, 2, 2, out_channels), summed, SUMMED)

    def read(b: tirx.Var, c: tirx.Var, row: tirx.Expr, column: tirx.Expr) -> tirx.Expr:
        if not share_pad:
            return padded[b, c, row, column]
        return padded[b // PHASES, c, row + b % PHASES // 2, column + b % 2]

    c, ky, kx = te.reduce_axis((0, channels), "c"), te.reduce_axis((0, 2), "ky"), te.reduce_axis((0, 2), "kx")
    phases = te.compute(
        (batch * PHASES, out_channels, height, width),
        lambda b, n, i, j: te.sum(
            read(b, c, i + ky, j + kx).astype(dtype) * weights[b, c, ky, kx, n].astype(dtype), axis=[c, ky, kx]
        ),
        "conv2d_nchw",
    )
    return te.compute(
        (batch, out_channels, 2 * height, 2 * width),
        lambda b, n, i, j: phases[b * PHASES + i % 2 * 2 + j % 2, n, i // 2, j // 2],
        "interleave",
    )
