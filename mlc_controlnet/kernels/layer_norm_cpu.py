# mypy: disable-error-code="no-untyped-def, valid-type"
"""Layer norm for processors: a row, which stays in the first-level cache, is read three times, in vectors."""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.kernels.asked_for import asked_for
from mlc_controlnet.kernels.integers import divisors
from mlc_controlnet.kernels.lanes_cpu import across_lanes, chains_of
from mlc_controlnet.kernels.marks import rebuilt
from mlc_controlnet.kernels.normalization import LayerNorm
from mlc_controlnet.kernels.registers_cpu import Registers, registers_of
from mlc_controlnet.kernels.schedule_elementwise_cpu import WORTH_A_THREAD
from mlc_controlnet.kernels.tunable import Decisions, Operation, Tunable, params_of
from mlc_controlnet.kernels.vectors import neighbours, spread, vector_of

VERSION = 1  # of what the decisions mean
ROWS_OF_A_TASK = 16  # a thread's way to its next task takes as long as some rows
MOST_ROWS, MOST_CHAINS = 64, 8  # a search's


@dataclass(frozen=True)
class Tile:
    """Rows of a task, and independent sums of a row."""

    rows: int
    chains: int


def default_tile(norm: LayerNorm, registers: Registers) -> Tile:
    """Return the tile of the rules."""
    return Tile(math.gcd(norm.rows, ROWS_OF_A_TASK), chains_of(_vectors(norm, registers)))


def tiles(norm: LayerNorm, registers: Registers) -> list[Tile]:
    """List the search space."""
    return [
        Tile(rows, chains)
        for rows in divisors(norm.rows, MOST_ROWS)
        for chains in divisors(_vectors(norm, registers), MOST_CHAINS)
    ]


def tunable_layer_norm(function: tirx.PrimFunc, target: Target) -> Tunable | None:
    """Return what there is to decide about a kernel of this module; None if the function is none."""
    norm = asked_for(function)
    if not isinstance(norm, LayerNorm):
        return None
    registers = registers_of(target)

    def schedule(decisions: Decisions) -> tirx.PrimFunc:
        return rebuilt(function, build(norm, registers, Tile(**decisions)))

    return Tunable(
        Operation("layer_norm_cpu", VERSION, norm.axes, (), params_of(function)),
        asdict(default_tile(norm, registers)),
        lambda: [asdict(tile) for tile in tiles(norm, registers)],
        schedule,
        math.prod(norm.axes),
    )


def _vectors(norm: LayerNorm, registers: Registers) -> int:
    return norm.width // math.gcd(registers.lanes, norm.width)


@lru_cache(maxsize=256)  # TVM parses its text anew each time: a tenth of a second
def build(norm: LayerNorm, registers: Registers, tile: Tile | None = None) -> tirx.PrimFunc:
    """See `layer_norm` for its parameters. tile: None is the rules'."""
    tile = default_tile(norm, registers) if tile is None else tile
    values = norm.rows * norm.width
    lanes = math.gcd(registers.lanes, norm.width)
    chains = tile.chains
    steps = norm.width // lanes // chains
    vector = vector_of("float32", lanes)
    tasks = T.parallel if values >= WORTH_A_THREAD else T.serial
    rows = tile.rows

    @T.prim_func(s_tir=True, private=True)
    def layer_norm(
        x: T.Buffer(norm.shape, norm.dtype),
        gamma: T.Buffer((norm.width,), norm.dtype),
        beta: T.Buffer((norm.width,), norm.dtype),
        y: T.Buffer(norm.shape, norm.dtype),
    ):
        for task in tasks(norm.rows // rows):
            with T.sblock("layer_norm"):
                T.reads()
                T.writes()
                x_flat = T.decl_buffer((values,), norm.dtype, data=x.data)
                y_flat = T.decl_buffer((values,), norm.dtype, data=y.data)
                total = T.sblock_alloc_buffer((chains,), vector, scope="local")
                deviation = T.sblock_alloc_buffer((1,), vector, scope="local")
                mean = T.sblock_alloc_buffer((1,), "float32", scope="local")
                scale = T.sblock_alloc_buffer((1,), "float32", scope="local")
                for row in T.serial(rows):
                    first: T.let[T.int32] = (task * rows + row) * norm.width

                    for c in T.unroll(chains):
                        total[c] = spread(T.float32(0), lanes)
                    for n in T.serial(steps):
                        for c in T.unroll(chains):
                            total[c] = total[c] + T.Cast(
                                vector, x_flat[neighbours(first + (n * chains + c) * lanes, lanes)]
                            )
                    for c in T.unroll(chains - 1):
                        total[0] = total[0] + total[c + 1]
                    mean[0] = across_lanes(total[0], lanes) / T.float32(norm.width)

                    for c in T.unroll(chains):
                        total[c] = spread(T.float32(0), lanes)
                    for n in T.serial(steps):
                        for c in T.unroll(chains):
                            deviation[0] = T.Cast(
                                vector, x_flat[neighbours(first + (n * chains + c) * lanes, lanes)]
                            ) - spread(mean[0], lanes)
                            total[c] = total[c] + deviation[0] * deviation[0]
                    for c in T.unroll(chains - 1):
                        total[0] = total[0] + total[c + 1]
                    scale[0] = T.float32(1) / T.sqrt(
                        across_lanes(total[0], lanes) / T.float32(norm.width) + T.float32(norm.epsilon)
                    )

                    for n in T.serial(norm.width // lanes):
                        deviation[0] = T.Cast(vector, x_flat[neighbours(first + n * lanes, lanes)]) - spread(
                            mean[0], lanes
                        )
                        y_flat[neighbours(first + n * lanes, lanes)] = T.Cast(
                            vector_of(norm.dtype, lanes),
                            deviation[0] * spread(scale[0], lanes) * T.Cast(vector, gamma[neighbours(n * lanes, lanes)])
                            + T.Cast(vector, beta[neighbours(n * lanes, lanes)]),
                        )

    return layer_norm
