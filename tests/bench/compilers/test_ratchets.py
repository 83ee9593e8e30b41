"""What AMD's compiler makes of the heaviest kernels: bounds that only rise. Nothing is timed; every figure is exact.

Skipped where Mesa 25, spirv-tools or npm's packages are missing: tests/bench/install_mesa.sh installs the first two.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mlc_controlnet.bench.compilers import kernels
from mlc_controlnet.bench.compilers.amd import mesa_version
from mlc_controlnet.bench.compilers.chips import W7900
from mlc_controlnet.bench.compilers.judge import judge_operations
from mlc_controlnet.bench.compilers.judgement import Judgement, KernelJudgement
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels import convolution_tiling_gpu, matmul_tile

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Ratchet:
    """Least values, over the whole step of k with its loads, on RDNA 3, for float16 unless it is said.

    Attributes:
        a_vector_instruction, a_workgroup_load: multiply-adds.
        occupancy: waves a SIMD.
    """

    a_vector_instruction: float
    a_workgroup_load: float
    occupancy: int


WINOGRAD = {"float16": Ratchet(1.26, 17.5, 8), "float32": Ratchet(0.89, 14.3, 8)}
RATCHETS = {
    "conv3x3_320_320_64": Ratchet(1.55, 42.6, 10),
    "conv3x3_640_640_32": Ratchet(1.55, 42.6, 10),
    "conv3x3_1280_1280_16": Ratchet(1.55, 42.6, 10),
    "conv3x3_128_128_512": Ratchet(1.55, 42.6, 10),
    "conv3x3_320_320_64_s2": Ratchet(1.49, 36.5, 8),
    "upsample_conv3x3_640_32": Ratchet(1.56, 41.1, 8),
    "matmul_4096_320_320": Ratchet(1.72, 21.9, 12),
    "geglu_4096_320": Ratchet(1.72, 21.9, 12),
    "conv1x1_640_320_64": Ratchet(1.72, 19.5, 16),
    "attention_self_d40_4096": Ratchet(1.35, 14.1, 10),
    "attention_self_d80_1024": Ratchet(1.43, 14.4, 8),
    "attention_self_d160_256": Ratchet(1.32, 9.4, 10),
}


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        mesa_version(W7900)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _rules_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The bounds are of what the rules choose: a tuning record may trade one figure for another."""
    monkeypatch.setattr(kernels, "TUNING_DB", tmp_path)


# Predicted microseconds at most, of an operation with few tiles for a W7900, where a smaller tile fills it better.
MICROSECONDS = {
    "conv3x3_320_320_64": 114.0,
    "conv3x3_640_640_32": 129.5,
    "matmul_4096_320_320": 18.1,
    "matmul_1024_2560_640": 71.5,
    "matmul_77_768_1280": 5.2,
}


def judge(name: str, dtype: str = "float16") -> Judgement:
    try:
        found = {judgement.name: judgement for _, judgement in judge_operations((name,), dtype, [W7900])}
    except UserError as error:  # npm's packages
        pytest.skip(str(error))
    return found[name]


@pytest.mark.parametrize("name", MICROSECONDS)
def test_tiles_that_fill_a_gpu_keep_the_time_they_reached(name: str) -> None:
    assert judge(name).microseconds <= MICROSECONDS[name]


@pytest.mark.parametrize("dtype", WINOGRAD)
def test_winograds_convolution_keeps_what_it_reached(dtype: str) -> None:
    judgement, ratchet = judge("conv3x3_640_640_32", dtype), WINOGRAD[dtype]
    assert not judgement.errors
    (kernel,) = judgement.kernels
    assert kernel.spilled == 0
    assert kernel.multiply_adds < 0.6 * judgement.multiply_adds
    assert kernel.step.a_vector_instruction >= ratchet.a_vector_instruction
    assert kernel.step.a_workgroup_load >= ratchet.a_workgroup_load
    assert kernel.occupancy >= ratchet.occupancy


@pytest.mark.parametrize("name", RATCHETS)
def test_the_heaviest_kernel_of_an_operation_keeps_what_it_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whole tiles, not Winograd's: those trade these figures for SIMDs that are busy, and for fewer products."""
    for module in (matmul_tile, convolution_tiling_gpu):
        monkeypatch.setattr(module, "WORTH_ANOTHER_TILE", 0.0)
    judgement, ratchet = judge(name), RATCHETS[name]
    assert not judgement.errors
    heaviest: KernelJudgement = judgement.kernels[0]
    assert heaviest.spilled == 0
    assert heaviest.step.a_vector_instruction >= ratchet.a_vector_instruction
    assert heaviest.step.a_workgroup_load >= ratchet.a_workgroup_load
    assert heaviest.occupancy >= ratchet.occupancy
    executed = sum(kernel.launches * kernel.multiply_adds for kernel in judgement.kernels)
    assert executed > 0.2 * judgement.multiply_adds  # all of them; a transform saves three quarters at most


def test_a_shader_that_is_wrong_is_named_and_the_others_are_judged() -> None:
    from mlc_controlnet.bench.compilers.judge import Launched, Subject
    from mlc_controlnet.bench.compilers.judge import judge as judge_shaders

    right = "@group(0) @binding(0) var<storage, read_write> x : array<f32>;\n@compute @workgroup_size(64)\n" + (
        "fn right(@builtin(global_invocation_id) i : vec3<u32>) { x[i.x] = x[i.x] + 1.0; }"
    )
    shaders = {"right": Launched(right, 1, 4, 2048), "wrong": Launched(right.replace("1.0", "one"), 1, 4, 2048)}
    ((_, judgement),) = judge_shaders(Subject("pair", "a pair", 0, 2048), shaders, "float32", [W7900])
    assert [kernel.name for kernel in judgement.kernels] == ["right"]
    assert list(judgement.errors) == ["wrong"]
    assert "one" in judgement.errors["wrong"]
