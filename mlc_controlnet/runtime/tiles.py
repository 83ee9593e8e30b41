"""Run a component that was compiled for one size over larger inputs: overlapping tiles, blended linearly.

Layout and weights are those of diffusers' AutoencoderKL.tiled_decode and tiled_encode, with an overlap of a quarter. A
compiled component takes full tiles only: where diffusers cuts the last tile off at the border, this one moves it
inwards, and the cells before its place in the layout are dropped. Twin: web/src/engine/tiles.ts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

OVERLAP = 0.25  # of a tile's side


@dataclass(frozen=True)
class Tile:
    """One tile along an axis, in latent cells."""

    start: int  # the first cell that the component reads
    place: int  # the first cell that the result takes, start or later; with the next tile it shares the overlap


def tile_axis(length: int, tile: int) -> list[Tile]:
    """Lay tiles of `tile` cells over `length` cells, which are as many at least."""
    assert length >= tile, f"{length} latent cells are fewer than the {tile} of a tile"
    stride = tile_stride(tile)
    tiles = [Tile(0, 0)]
    while tiles[-1].start + tile < length:
        place = tiles[-1].place + stride
        tiles.append(Tile(min(place, length - tile), place))
    return tiles


def tile_stride(tile: int) -> int:
    """Return the distance between tiles of `tile` cells; the rest is the overlap."""
    return int(tile * (1 - OVERLAP))


def run_at_any_size(
    component: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    cell_in: int,
    cell_out: int,
) -> np.ndarray:
    """Run a component on the whole of x if it is compiled for this size, otherwise in tiles of the largest that fits.

    sizes: height and width of inputs for which the component is compiled; one at least is not larger than x.
    The others are those of `run_in_tiles`.
    """
    height, width = x.shape[2:]
    if (height, width) in sizes:
        return component(x)
    rows, columns = max((s for s in sizes if s[0] <= height and s[1] <= width), key=lambda size: size[0] * size[1])
    return run_in_tiles(component, x, (rows // cell_in, columns // cell_in), cell_in, cell_out)


def run_in_tiles(
    component: Callable[[np.ndarray], np.ndarray], x: np.ndarray, tile: tuple[int, int], cell_in: int, cell_out: int
) -> np.ndarray:
    """Run a component on every tile and blend the outputs.

    component: takes float32 [1, C, tile[0] cell_in, tile[1] cell_in], returns [1, C', tile[0] cell_out, ...].
    x: float32 [1, C, h cell_in, w cell_in] with at least a tile's cells; the result is [1, C', h cell_out, w cell_out].
    tile: its height and width in latent cells. cell_in, cell_out: the side of a latent cell in x and in the result:
    1 and 8 for a decoder, 8 and 1 for an encoder.
    """
    vertical = tile_axis(x.shape[2] // cell_in, tile[0])
    horizontal = tile_axis(x.shape[3] // cell_in, tile[1])
    strides = [tile_stride(side) * cell_out for side in tile]
    rows: list[np.ndarray] = []
    above: list[np.ndarray] = []
    for i, down in enumerate(vertical):
        row: list[np.ndarray] = []
        for j, across in enumerate(horizontal):
            top, left = down.start * cell_in, across.start * cell_in
            output = component(x[:, :, top : top + tile[0] * cell_in, left : left + tile[1] * cell_in])
            part = output[:, :, (down.place - down.start) * cell_out :, (across.place - across.start) * cell_out :]
            if i > 0:
                part = blend(above[j][:, :, strides[0] :], part, axis=2)
            if j > 0:
                part = blend(row[j - 1][:, :, :, strides[1] :], part, axis=3)
            row.append(part)
        heights = strides[0] if i + 1 < len(vertical) else None  # the last tile ends at the border
        widths = [strides[1]] * (len(horizontal) - 1) + [None]
        rows.append(np.concatenate([part[:, :, :heights, :end] for part, end in zip(row, widths, strict=True)], axis=3))
        above = row
    return np.concatenate(rows, axis=2)


def blend(before: np.ndarray, after: np.ndarray, axis: int) -> np.ndarray:
    """Fade from the end of one tile, the overlap, to the beginning of the next: the k-th of n has the weight k / n."""
    count = before.shape[axis]
    shape = [1, 1, 1, 1]
    shape[axis] = count
    weights = (np.arange(count) / count).astype(np.float32).reshape(shape)
    shared = after.take(range(count), axis)
    faded = before * (1 - weights) + shared * weights
    return np.concatenate([faded, after.take(range(count, after.shape[axis]), axis)], axis)
