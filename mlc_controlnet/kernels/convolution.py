"""A 2-D convolution whose input is computed as it is read; what a fused convolution lowers to."""

from collections.abc import Callable

from tvm import te, tirx

Value = Callable[[tirx.Var, tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr]


def convolve(
    value: Value,
    size: tuple[int, int, int, int],
    weight: te.Tensor,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dtypes: tuple[str, str],
) -> te.Tensor:
    """[B, N, H', W'] from an input of `size` [B, C, H, W] that nobody stores, and `weight` [N, C, kh, kw].

    Args:
        value: the input's element at (b, c, y, x).
        padding: zeros at the top, left, bottom and right.
        dtypes: of the input's elements, and of the sums and the result.
    """
    batch, channels, height, width = size
    top, left, bottom, right = (int(p) for p in padding)
    down, across = (int(stride) for stride in strides)
    out_channels, _, kernel_y, kernel_x = (int(extent) for extent in weight.shape)
    rows, columns = height + top + bottom, width + left + right
    dtype, sums = dtypes

    def padded_value(b: tirx.Var, c: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        inside = tirx.all(i >= top, i < height + top, j >= left, j < width + left)
        return tirx.if_then_else(inside, value(b, c, i - top, j - left), tirx.const(0, dtype))

    padded = te.compute((batch, channels, rows, columns), padded_value, "pad_temp")
    c = te.reduce_axis((0, channels), "c")
    ky, kx = te.reduce_axis((0, kernel_y), "ky"), te.reduce_axis((0, kernel_x), "kx")
    return te.compute(
        (batch, out_channels, (rows - kernel_y) // down + 1, (columns - kernel_x) // across + 1),
        lambda b, n, i, j: te.sum(
            padded[b, c, i * down + ky, j * across + kx].astype(sums) * weight[n, c, ky, kx].astype(sums),
            axis=[c, ky, kx],
        ),
        "conv2d_nchw",
    )
