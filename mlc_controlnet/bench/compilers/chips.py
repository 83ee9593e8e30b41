"""The GPUs that times are predicted for, with the figures that their makers publish."""

from dataclasses import dataclass

AMD, NVIDIA = "AMD", "NVIDIA"


@dataclass(frozen=True)
class Chip:
    """A GPU.

    Attributes:
        name: as the command line has it.
        title: the product.
        maker: whose compiler: AMD's or NVIDIA's.
        architecture: the compiler's name for the chip: RADV_FORCE_FAMILY of Mesa, -arch of nvcc.
        units: compute units, or multiprocessors.
        simds: SIMDs, each with its own instruction stream, of a unit.
        gigahertz: boost clock.
        gigabytes_per_second: of its memory.
        teraflops: most float32 and float16 arithmetic of vector instructions, without matrix units, two operations a
            multiply-add.
        source: where the figures stand.
        matrix_teraflops: most arithmetic of its matrix instructions, float16 with float32 sums; 0 where Vulkan, and so
            WGSL, has none.
    """

    name: str
    title: str
    maker: str
    architecture: str
    units: int
    simds: int
    gigahertz: float
    gigabytes_per_second: float
    teraflops: dict[str, float]
    source: str
    matrix_teraflops: float = 0.0


# RDNA 3 issues both halves of a wave of 64 at once for v_fmac_f32 and its like, but not for v_pk_fma_f16, which does
# two multiply-adds a lane: both do 128 multiply-adds a cycle and unit, 61.3 TFLOP/s. The 122.6 TFLOP/s that AMD
# publishes for float16 are those of matrix instructions (WMMA), which WGSL has behind a flag of Chromium's only, and of
# v_dual_dot2acc_f32_f16, which it does not reach.
W7900 = Chip(
    "navi31",
    "Radeon Pro W7900",
    AMD,
    "navi31",
    96,
    2,
    2.495,
    864,
    {"float32": 61.3, "float16": 61.3},
    "amd.com, Radeon PRO W7900: 96 compute units, 61.3 TFLOP/s float32, 122.6 float16, 864 GB/s, boost 2495 MHz",
    matrix_teraflops=122.6,
)
W6800 = Chip(
    "navi21",
    "Radeon Pro W6800",
    AMD,
    "navi21",
    60,
    2,
    2.32,
    512,
    {"float32": 17.8, "float16": 35.7},
    "amd.com, Radeon PRO W6800: 60 compute units, 17.83 TFLOP/s float32, 35.66 float16, 512 GB/s, boost 2320 MHz",
)
# Without tensor cores, which WGSL does not reach.
A100 = Chip(
    "sm_80",
    "A100 40 GB",
    NVIDIA,
    "sm_80",
    108,
    4,
    1.41,
    1555,
    {"float32": 19.5, "float16": 78.0},
    "NVIDIA A100 architecture white paper: 108 multiprocessors, 19.5 TFLOP/s float32, 78 float16, 1555 GB/s, 1410 MHz",
)
RTX_4090 = Chip(
    "sm_89",
    "GeForce RTX 4090",
    NVIDIA,
    "sm_89",
    128,
    4,
    2.52,
    1008,
    {"float32": 82.6, "float16": 82.6},
    "NVIDIA Ada architecture white paper: 128 multiprocessors, 82.6 TFLOP/s float32 and float16, 1008 GB/s, 2520 MHz",
)
H100 = Chip(
    "sm_90",
    "H100 SXM",
    NVIDIA,
    "sm_90",
    132,
    4,
    1.98,
    3350,
    {"float32": 66.9, "float16": 133.8},
    "NVIDIA H100 architecture white paper: 132 multiprocessors, 66.9 TFLOP/s float32, 133.8 float16, 3.35 TB/s",
)
CHIPS = {chip.name: chip for chip in (W7900, W6800, A100, RTX_4090, H100)}
