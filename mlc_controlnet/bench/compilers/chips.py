"""The GPUs that times are predicted for, with the figures that their makers publish."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """A GPU.

    Attributes:
        name: as the command line has it.
        title: the product.
        architecture: the compiler's name for the chip: RADV_FORCE_FAMILY of Mesa.
        units: compute units.
        simds: SIMDs, each with its own instruction stream, of a unit.
        gigahertz: boost clock.
        gigabytes_per_second: of its memory.
        teraflops: most float32 and float16 arithmetic of vector instructions, without matrix units, two operations a
            multiply-add.
        source: where the figures stand.
    """

    name: str
    title: str
    architecture: str
    units: int
    simds: int
    gigahertz: float
    gigabytes_per_second: float
    teraflops: dict[str, float]
    source: str


# RDNA 3 issues both halves of a wave of 64 at once for v_fmac_f32 and its like, but not for v_pk_fma_f16, which does
# two multiply-adds a lane: both do 128 multiply-adds a cycle and unit, 61.3 TFLOP/s. The 122.6 TFLOP/s that AMD
# publishes for float16 are those of WMMA and v_dual_dot2acc_f32_f16, which WGSL does not reach.
W7900 = Chip(
    "navi31",
    "Radeon Pro W7900",
    "navi31",
    96,
    2,
    2.495,
    864,
    {"float32": 61.3, "float16": 61.3},
    "amd.com, Radeon PRO W7900: 96 compute units, 61.3 TFLOP/s float32, 122.6 float16, 864 GB/s, boost 2495 MHz",
)
W6800 = Chip(
    "navi21",
    "Radeon Pro W6800",
    "navi21",
    60,
    2,
    2.32,
    512,
    {"float32": 17.8, "float16": 35.7},
    "amd.com, Radeon PRO W6800: 60 compute units, 17.83 TFLOP/s float32, 35.66 float16, 512 GB/s, boost 2320 MHz",
)
CHIPS = {chip.name: chip for chip in (W7900, W6800)}
