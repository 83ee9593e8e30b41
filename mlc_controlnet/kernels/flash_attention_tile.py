"""How flash attention for GPUs divides its work: threads, micro-tiles and what lies in workgroup memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.integers import ceil_div, divisors
from mlc_controlnet.kernels.tunable import Decisions
from mlc_controlnet.kernels.vectors import LANES
from mlc_controlnet.kernels.workgroups import ENOUGH_WORKGROUPS, WORKGROUP_BYTES

THREADS = 128  # of a workgroup at most, and nearly: AMD's GPUs run 64 at a time, whether there are as many or not
MAX_CHUNK = 20  # vec4s of a head in workgroup memory at a time, unless the queries stay there
# Below this, tiles of queries are smaller. Each tile reads all keys and values, so tiles shrink later than those of
# other kernels: an integrated GPU runs about this many workgroups at a time.
FEWEST_WORKGROUPS = ENOUGH_WORKGROUPS // 2
MOST_THREADS = 256  # of a workgroup, that every WebGPU device takes
MOST_PARTS = 32  # vectors of the result in a thread's registers, in a search's tiles
LEAST_QUERIES = 12  # in a tile: with fewer, loading keys and values takes as long as the arithmetic


@dataclass(frozen=True)
class Tile:
    """The division of a workgroup's work; depths are counted in vec4s."""

    depth: int
    threads_x: int  # along keys, then along depth
    threads_y: int  # along queries
    rows: int  # queries per thread
    columns: int  # keys per thread
    chunk: int  # depth of keys in workgroup memory at a time, and of queries unless they stay
    keeps_queries: bool  # whether the queries, read whole, stay in workgroup memory for all keys
    value_chunk: int = 0  # depth of values at a time
    value_threads: int = 0  # the values at a time belong to the keys of so many threads

    @property
    def threads(self) -> int:
        """Threads per workgroup."""
        return self.threads_x * self.threads_y

    @property
    def queries(self) -> int:
        """Queries per workgroup."""
        return self.threads_y * self.rows

    @property
    def keys(self) -> int:
        """Keys per pass over the loop."""
        return self.threads_x * self.columns

    @property
    def values(self) -> int:
        """Values in workgroup memory at a time."""
        return self.value_threads * self.columns

    @property
    def query_depth(self) -> int:
        """Depth of queries in workgroup memory at a time."""
        return self.depth if self.keeps_queries else self.chunk

    @property
    def first_query(self) -> int:
        """Place of the first query, behind the keys. Values take the place of keys and, if in chunks, queries."""
        return span(self.keys, self.columns, self.chunk)

    @property
    def vectors(self) -> int:
        """Vectors of queries, keys and values in workgroup memory."""
        queries = span(self.queries, self.rows, self.query_depth)
        return max(self.first_query + queries, span(self.values, self.columns, self.value_chunk))

    def workgroup_bytes(self, element_bytes: int) -> int:
        """Count the bytes of queries, keys or values, probabilities, and a maximum per thread and row."""
        return (self.vectors * LANES + self.queries * (self.keys + self.threads_x)) * element_bytes


def place(row: Any, group: int, depth: int) -> Any:
    """Return the place of a row in workgroup memory, in vectors, of which it has `depth`.

    A thread's rows, `group` of them and an even number, are neighbours; those of neighbouring threads are an odd number
    of vectors apart, so that they lie in different banks.
    """
    return row * depth + row // group


def span(rows: int, group: int, depth: int) -> int:
    """Count the vectors of workgroup memory that rows take."""
    return place(rows, group, depth)


def choose_tile(attention: Attention) -> Tile:
    """Choose the first tile that fits workgroup memory, smaller if there are few workgroups.

    In float16 a thread has 4 queries and 4 keys: a vector that is read serves 4 rows or columns, and with up to 16
    sums a row for the result, scores and operands take about 100 registers. Workgroup memory allows no larger
    micro-tile: the probabilities of 128 threads with 8 x 4 would take half of it. In float32, of which half as much
    fits, fewer threads have as many each, and 4 x 2 of heads beyond 160. With 2 x 4 in twice the threads, heads of 160
    were bound by reads of workgroup memory: 1.19, 0.98 and 1.32 times the time on navi31, navi21 and sm_89, predicted.
    """
    depth = attention.head_size // LANES
    element_bytes = _bytes(attention)
    tile = next(filter(None, (_filled(shape, element_bytes) for shape in _shapes(depth, attention.dtype))))
    while tile.queries >= 2 * LEAST_QUERIES and _workgroups(attention, tile) < FEWEST_WORKGROUPS:
        # As many threads with fewer queries each: an empty GPU has too few threads to hide latencies behind.
        if tile.rows == tile.columns == 4:
            smaller = replace(tile, rows=2)
        else:
            smaller = replace(tile, threads_y=tile.threads_y // 2)
        tile = _filled(smaller, element_bytes) or tile
    return tile


def list_tiles(attention: Attention) -> list[Tile]:
    """List the search space: the rules' tile, and all that fit workgroup memory and registers."""
    depth = attention.head_size // LANES
    found = [choose_tile(attention)]
    for threads_x in divisors(depth, 32):
        for threads_y in (4, 8, 16, 32, 64):
            for rows in (2, 4):
                for columns in (2, 4):
                    shape = Tile(depth, threads_x, threads_y, rows, columns, 0, False)
                    is_small = threads_x * threads_y <= MOST_THREADS and rows * depth // threads_x <= MOST_PARTS
                    if is_small and shape.threads >= THREADS // 4:
                        found += filter(None, (_filled_by(shape, keeps, _bytes(attention)) for keeps in (True, False)))
    return list(dict.fromkeys(found))


def decisions_of(tile: Tile) -> Decisions:
    """Return what a search decides about a tile; the rest follows from it."""
    names = ("threads_x", "threads_y", "rows", "columns", "keeps_queries")
    return {name: int(getattr(tile, name)) for name in names}


def tile_of(attention: Attention, decisions: Decisions) -> Tile:
    """Return the tile of a search's decisions. Raises ValueError if it does not fit workgroup memory."""
    x, y, rows, columns, keeps = (
        int(decisions[name]) for name in ("threads_x", "threads_y", "rows", "columns", "keeps_queries")
    )
    shape = Tile(attention.head_size // LANES, x, y, rows, columns, 0, False)
    tile = _filled_by(shape, bool(keeps), _bytes(attention))
    if tile is None:
        raise ValueError(f"no tile of {decisions} fits {WORKGROUP_BYTES} bytes of workgroup memory")
    return tile


def _bytes(attention: Attention) -> int:
    return 2 if attention.dtype == "float16" else 4


def _shapes(depth: int, dtype: str) -> Iterator[Tile]:
    """Yield threads and micro-tiles, the best first; nothing is in workgroup memory yet."""
    if dtype == "float16":
        threads_x = divisors(depth, 10 if depth <= 2 * MAX_CHUNK else 32)[-1]
        threads_y = min(32, THREADS // threads_x)
        yield Tile(depth, threads_x, threads_y, 4, 4, 0, False)
        yield Tile(depth, threads_x, threads_y, 2, 4, 0, False)
        yield Tile(depth, threads_x, threads_y // 2, 2, 4, 0, False)
    else:
        threads_x = divisors(depth, 10 if depth <= 2 * MAX_CHUNK else 16)[-1]
        if depth <= 2 * MAX_CHUNK:
            yield Tile(depth, threads_x, 8, 4, 4, 0, False)
        yield Tile(depth, threads_x, 8, 4, 2, 0, False)
        yield Tile(depth, threads_x, 4, 4, 2, 0, False)


def _filled(shape: Tile, element_bytes: int) -> Tile | None:
    """Fill workgroup memory with queries that stay and keys as deep as fits, else with both in chunks."""
    return _filled_by(shape, True, element_bytes) or _filled_by(shape, False, element_bytes)


def _filled_by(shape: Tile, keeps_queries: bool, element_bytes: int) -> Tile | None:
    for chunk in reversed(divisors(shape.depth, shape.depth if keeps_queries else MAX_CHUNK)):
        if chunk % shape.threads_x == 0 or (not keeps_queries and shape.threads_x % chunk == 0):
            tile = _with_values(replace(shape, chunk=chunk, keeps_queries=keeps_queries))
            if tile.workgroup_bytes(element_bytes) <= WORKGROUP_BYTES:
                return tile
    return None


def _with_values(tile: Tile) -> Tile:
    """Let as many values as fit take the place of keys, and of queries that do not stay.

    Of all keys first, and as deep as fits: each probability that is read serves all of a chunk. If that is less than a
    vector a thread, whole values of fewer keys.
    """
    room = tile.first_query if tile.keeps_queries else tile.vectors
    parts = tile.depth // tile.threads_x
    deep = [replace(tile, value_chunk=tile.threads_x * n, value_threads=tile.threads_x) for n in divisors(parts, parts)]
    few = [
        replace(tile, value_chunk=tile.depth, value_threads=n) for n in divisors(tile.threads_x, tile.threads_x)[:-1]
    ]
    fitting = [t for t in (*few, *deep) if span(t.values, t.columns, t.value_chunk) <= room]
    return (fitting or few or deep)[-1]


def _workgroups(attention: Attention, tile: Tile) -> int:
    return attention.batch * attention.heads * ceil_div(attention.queries, tile.queries)
