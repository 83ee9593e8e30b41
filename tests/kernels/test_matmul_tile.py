"""Which tile of a matrix product a workgroup computes."""

from dataclasses import replace

import pytest

from mlc_controlnet.kernels import matmul_tile
from mlc_controlnet.kernels.matmul_tile import (
    FINER_TILES,
    LANES,
    MatmulTile,
    Product,
    choose_step,
    choose_tile,
    decisions_of,
    has_tile,
    list_tiles,
)
from mlc_controlnet.kernels.workgroups import busiest_simd


def shape_of_tile(rows: int, columns: int, depth: int, dtype: str, is_gated: bool = False) -> tuple[int, int]:
    tile = choose_tile(Product(1, rows, columns, depth, dtype, is_gated))
    assert tile is not None
    return tile.shape


def test_a_step_divides_the_depth() -> None:
    wide, narrow = MatmulTile(8, 8, 8, 8), MatmulTile(8, 8, 4, 4)

    def steps(tile: MatmulTile, depth: int) -> list[int | None]:
        return [choose_step(Product(1, 64, 64, depth, dtype), tile) for dtype in ("float16", "float32")]

    assert steps(wide, 320) == [32, 16]
    assert steps(narrow, 320) == [64, 32]
    assert choose_step(Product(1, 64, 64, 1280, "float32", is_gated=True), MatmulTile(8, 8, 8, 4)) == 16
    assert [steps(wide, depth)[0] for depth in (40, 4, 6)] == [8, 4, None]


def test_a_depth_that_is_no_multiple_of_a_vector_has_no_tile() -> None:
    assert choose_tile(Product(1, 64, 64, 42, "float16")) is None


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tiles_grow_with_the_work(dtype: str) -> None:
    """Stable Diffusion 1.5 at 512x512: the finest level fills a GPU with wide tiles, the coarsest with small ones."""
    assert shape_of_tile(4096, 1280, 320, dtype) == (64, 64)
    assert max(shape_of_tile(64, 1280, 1280, dtype)) == 32


@pytest.mark.parametrize(("rows", "columns"), [(4096, 320), (1024, 640), (256, 1280), (64, 1280), (77, 1280)])
def test_a_gpu_of_sixty_units_has_two_tiles_for_each(rows: int, columns: int) -> None:
    product = Product(1, rows, columns, 1280, "float16")
    tile = choose_tile(product)
    assert tile is not None
    assert tile.workgroups(product) >= 120


def test_the_tokens_of_a_prompt_leave_few_rows_idle() -> None:
    """A multiple of 32 would be 96 rows for 77."""
    for columns in (320, 768, 1280):
        assert shape_of_tile(77, columns, 768, "float32") == (16, 32)
        assert shape_of_tile(77, columns, 768, "float16")[0] == 16


@pytest.mark.parametrize(("rows", "columns", "depth"), [(256, 640, 2560), (64, 1280, 1280), (77, 1280, 768)])
def test_threads_share_a_micro_tile_where_float32_has_few_tiles(rows: int, columns: int, depth: int) -> None:
    """A read of workgroup memory serves 11 multiply-adds, where it would serve 8 with micro-tiles of half the size."""
    product = Product(1, rows, columns, depth, "float32")
    tile = choose_tile(product)
    assert tile is not None
    assert (tile.rows, tile.columns) == (4, 8)
    assert tile.threads_y * tile.threads_x * tile.slices == 64
    assert tile.workgroups(product) >= 120


# Stable Diffusion 1.5 at 512x512, tokens first and pictures first; a tile of each divides GPUs better.
UNEVEN = [
    ("float16", 4096, 320, 320),
    ("float16", 1024, 640, 2560),
    ("float16", 256, 1280, 1280),
    ("float16", 320, 4096, 960),
    ("float16", 1280, 256, 2560),
    ("float16", 77, 1280, 768),
    ("float32", 256, 1280, 5120),
    ("float32", 1280, 256, 640),
    ("float32", 77, 24960, 768),
]


def coarse_tile(product: Product) -> MatmulTile:
    """The tile without any finer one to choose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul_tile, "FINER_TILES", {product.dtype: ()})
        tile = choose_tile(product)
    assert tile is not None
    return tile


@pytest.mark.parametrize(
    ("product", "finer", "coarser"),
    [
        (Product(1, 1024, 640, 2560, "float16", packed="right"), (32, 32), (32, 64)),
        (Product(1, 77, 24960, 768, "float16", packed="right"), (16, 64), (16, 32)),
        (Product(1, 320, 4096, 320, "float16", transposes=True, packed="left"), (16, 64), (64, 64)),
        (Product(1, 1280, 256, 1280, "float16", transposes=True, packed="left"), (16, 32), (32, 32)),
        (Product(1, 4096, 320, 320, "float16", packed="right"), (64, 64), (64, 64)),
        (Product(1, 256, 1280, 1280, "float16", packed="right"), (32, 32), (32, 32)),
    ],
    ids=str,
)
def test_a_finer_tile_decodes_packed_weights_for_no_fewer_of_the_other_operand(
    product: Product, finer: tuple[int, int], coarser: tuple[int, int]
) -> None:
    tile = choose_tile(product)
    assert tile is not None
    assert (tile.shape, coarse_tile(product).shape) == (finer, coarser)


@pytest.mark.parametrize(("dtype", "rows", "columns", "depth"), UNEVEN)
def test_a_finer_tile_leaves_less_to_the_busiest_simd(dtype: str, rows: int, columns: int, depth: int) -> None:
    """Less than the coarser tile, on one GPU at least, and more on none."""
    product = Product(1, rows, columns, depth, dtype)
    finer, coarser = choose_tile(product), coarse_tile(product)
    assert finer is not None

    def products(tile: MatmulTile) -> list[float]:
        of_a_thread = tile.rows * tile.columns / tile.slices
        return [of_a_thread * waves for waves in busiest_simd(tile.workgroups(product), tile.threads)]

    shares = [one / other for one, other in zip(products(finer), products(coarser), strict=True)]
    assert replace(finer, step=0, run=None) in [replace(tile, step=0) for tile, _ in FINER_TILES[dtype]]
    assert min(shares) < 1
    assert max(shares) <= 1
    assert finer.threads >= coarser.threads


@pytest.mark.parametrize(("dtype", "rows", "columns", "depth"), [*UNEVEN, ("float16", 77, 24960, 768)])
def test_a_search_may_decide_what_the_rules_do(dtype: str, rows: int, columns: int, depth: int) -> None:
    product = Product(1, rows, columns, depth, dtype)
    tile = choose_tile(product)
    assert tile is not None
    assert decisions_of(tile) in [decisions_of(one) for one in list_tiles(product)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_product_that_fills_gpus_keeps_wide_tiles(dtype: str) -> None:
    for rows, columns in ((4096, 1280), (4096, 960), (1024, 1920), (16384, 320)):
        tile = choose_tile(Product(1, rows, columns, 640, dtype))
        assert tile is not None
        assert (tile.shape, tile.slices) == ((64, 64), 1)


def test_a_thread_has_a_square_to_transpose() -> None:
    """Where fewer squares of four by four are brought than there are threads, the others wait."""
    for rows, columns in ((320, 4096), (640, 1024)):
        product = Product(1, rows, columns, 320, "float16", transposes=True)
        tile, straight = choose_tile(product), choose_tile(Product(1, rows, columns, 320, "float16"))
        assert tile is not None
        assert tile != straight
        assert tile.shape[1] * tile.step // LANES**2 >= tile.threads


def test_runs_of_sixteen_fit_a_step() -> None:
    for rows, step in ((4096, 16), (16384, 32)):
        tile = choose_tile(Product(1, rows, 320, 320, "float16"))
        assert tile is not None
        assert (tile.step, tile.run) == (step, 16)
    single = choose_tile(Product(1, 4096, 320, 320, "float32"))
    assert single is not None
    assert single.run is None


@pytest.mark.parametrize(("dtype", "is_gated"), [("float32", False), ("float16", False), ("float16", True)])
@pytest.mark.parametrize("columns", [16, 48, 64, 80, 96, 1280])
@pytest.mark.parametrize("rows", [8, 10, 77, 1000, 4096])
def test_whatever_may_have_a_tile_has_one(rows: int, columns: int, dtype: str, is_gated: bool) -> None:
    assert has_tile(rows, columns)
    assert columns % shape_of_tile(rows, columns, 320, dtype, is_gated)[1] == 0
