"""The operands of a matrix product in a GPU's workgroup memory: who brings them, and where they lie."""

from tvm import tirx
from tvm.s_tir import Schedule

from mlc_controlnet.kernels.anchored import Block
from mlc_controlnet.kernels.matmul_tile import MatmulTile
from mlc_controlnet.kernels.vectors import LANES


def bring_operands(
    schedule: Schedule,
    operands: list[Block],
    registers: list[Block],
    step: Block,
    tile: MatmulTile,
    k_is_last: tuple[bool, bool],
    gates: int,
) -> None:
    """Copy both operands to workgroup memory, once a step, and lay them out for those that read them."""
    left, right = operands
    _load(schedule, left, step, tile, axes=2)
    if k_is_last[0]:
        _spread_rows(schedule, left, tile.rows)
    elif tile.run is None:
        _spread_vectors(schedule, left, tile.rows)
    if k_is_last[1]:
        _load_transposed(schedule, right, step, tile, axes=2 + gates)
        schedule.transform_layout(registers[1], ("write", 0), _transposed)
    else:
        _load(schedule, right, step, tile, axes=2 + gates)
    if tile.run is None:
        _spread_vectors(schedule, right, tile.columns)
    elif gates and not k_is_last[1]:
        _join_gates(schedule, right)


def share_among_threads(schedule: Schedule, loop: Block, tile: MatmulTile) -> Block:
    """Share a row among threads. Returns the loop over the threads."""
    _, tz, ty, tx = schedule.split(loop, [None, tile.slices, tile.threads_y, tile.threads_x])
    if tile.slices > 1:
        schedule.bind(tz, "threadIdx.z")
    schedule.bind(ty, "threadIdx.y")
    schedule.bind(tx, "threadIdx.x")
    return tx


def unroll_in_vectors(schedule: Schedule, *loops: Block) -> None:
    """Unroll loops over registers, the last one into vectors: a register has no address to compute."""
    *outer, last = loops
    groups, vector = schedule.split(last, [None, LANES])
    for loop in (*outer, groups):
        schedule.unroll(loop)
    schedule.vectorize(vector)


def _load(schedule: Schedule, block: Block, place: Block, tile: MatmulTile, axes: int) -> None:
    """Bring an operand to workgroup memory in vectors: neighbouring threads copy neighbouring vectors."""
    schedule.compute_at(block, place, preserve_unit_loops=True)
    *outer, inner = schedule.get_loops(block)[-axes:]
    vectors, vector = schedule.split(inner, [None, LANES])
    share_among_threads(schedule, schedule.fuse(*outer, vectors), tile)
    schedule.vectorize(vector)


def _load_transposed(schedule: Schedule, block: Block, place: Block, tile: MatmulTile, axes: int) -> None:
    """[.., n, k] -> [.., k, n]: a thread takes four vectors of four of k, and stores four of four of n."""
    taken = schedule.cache_read(block, 0, "local")
    schedule.compute_at(block, place, preserve_unit_loops=True)
    *outer, n, k = schedule.get_loops(block)[-axes:]
    n0, n1 = schedule.split(n, [None, LANES])
    k0, k1 = schedule.split(k, [None, LANES])
    schedule.reorder(*outer, k0, n0, k1, n1)
    thread = share_among_threads(schedule, schedule.fuse(*outer, k0, n0), tile)
    schedule.compute_at(taken, thread, preserve_unit_loops=True)
    unroll_in_vectors(schedule, *schedule.get_loops(taken)[-2:])
    unroll_in_vectors(schedule, k1, n1)
    schedule.transform_layout(block, ("write", 0), _transposed)


def _transposed(*index: tirx.Var) -> tuple[tirx.Var, ...]:
    return (*index[:-2], index[-1], index[-2])


def _spread_rows(schedule: Schedule, block: Block, own: int) -> None:
    """[m, k] -> [m % own, m // own, k], one vector between: threads' rows lie an odd number of vectors apart."""
    schedule.transform_layout(
        block, ("write", 0), lambda *index: (*index[:-2], index[-2] % own, index[-2] // own, index[-1])
    )
    for axis in (-2, -3):
        schedule.storage_align(block, 0, axis=axis, factor=2 * LANES, offset=LANES)


def _spread_vectors(schedule: Schedule, block: Block, own: int) -> None:
    """[k, n] -> [k, n % own // 4, n // own, n % 4]: what threads read at once lies side by side."""
    if own > LANES:
        schedule.transform_layout(
            block,
            ("write", 0),
            lambda *index: (*index[:-1], index[-1] % own // LANES, index[-1] // own, index[-1] % LANES),
        )


def _join_gates(schedule: Schedule, block: Block) -> None:
    """[k, gate, n] -> [k, n // 4, gate, n % 4]: a thread's columns of both lie side by side."""
    schedule.transform_layout(
        block, ("write", 0), lambda *index: (*index[:-2], index[-1] // LANES, index[-2], index[-1] % LANES)
    )
