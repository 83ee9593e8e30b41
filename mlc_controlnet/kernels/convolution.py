"""A 2-D convolution whose weights lie as its kernels read them, and whose input may be computed as it is read."""

from collections.abc import Callable

from tvm import te, tirx

# The name of the block that a schedule does not inline: what a workgroup brings to its memory. Elsewhere passes match
# structure and not names, but no structure tells that `every_other` below must stay. An annotation of the block would
# tell it. But tuning records are filed under the structure of a PrimFunc, which includes annotations and no names.
STAGED = "pad_temp"
Value = Callable[[tirx.Var, tirx.Expr, tirx.Expr, tirx.Expr], tirx.Expr]


def convolve(
    value: Value,
    size: tuple[int, int, int, int],
    weight: te.Tensor,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dtypes: tuple[str, str],
    parts: int = 1,
) -> te.Tensor:
    """[B, N, H', W'] from an input of `size` [B, C, H, W] and `weight` [C, kh, kw, N].

    Args:
        value: the input's element at (b, c, y, x).
        padding: zeros at the top, left, bottom and right.
        dtypes: of the input's elements, and of the sums and the result.
        parts: of the input channels, each summed alone: the result is [B * parts, N, H', W'].
    """
    batch, channels, height, width = size[0] * parts, size[1] // parts, *size[2:]
    top, left, bottom, right = (int(p) for p in padding)
    down, across = (int(stride) for stride in strides)
    _, kernel_y, kernel_x, out_channels = (int(extent) for extent in weight.shape)
    rows, columns = height + top + bottom, width + left + right
    out_rows, out_columns = (rows - kernel_y) // down + 1, (columns - kernel_x) // across + 1
    dtype, sums = dtypes

    def depth_of(b: tirx.Expr, c: tirx.Expr) -> tirx.Expr:
        return c if parts == 1 else b % parts * channels + c

    def part_value(b: tirx.Expr, c: tirx.Expr, i: tirx.Expr, j: tirx.Expr) -> tirx.Expr:
        return value(b if parts == 1 else b // parts, depth_of(b, c), i, j)

    def padded_value(b: tirx.Var, c: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        inside = tirx.all(i >= top, i < height + top, j >= left, j < width + left)
        return tirx.if_then_else(inside, part_value(b, c, i - top, j - left), tirx.const(0, dtype))

    def every_other(b: tirx.Var, c: tirx.Var, i: tirx.Var, j: tirx.Var) -> tirx.Expr:
        return part_value(b, c, i * down, j * across)

    read = part_value
    if any((top, left, bottom, right)):
        read = te.compute((batch, channels, rows, columns), padded_value, STAGED).__call__
    elif (kernel_y, kernel_x) == (1, 1) and (down, across) != (1, 1):
        # Else a workgroup would bring what lies between as well: three pixels of four for steps of two.
        read = te.compute((batch, channels, out_rows, out_columns), every_other, STAGED).__call__
        down = across = 1
    c = te.reduce_axis((0, channels), "c")
    ky, kx = te.reduce_axis((0, kernel_y), "ky"), te.reduce_axis((0, kernel_x), "kx")
    return te.compute(
        (batch, out_channels, out_rows, out_columns),
        lambda b, n, i, j: te.sum(
            read(b, c, i * down + ky, j * across + kx).astype(sums) * weight[depth_of(b, c), ky, kx, n].astype(sums),
            axis=[c, ky, kx],
        ),
        "conv2d_nchw",
    )
