"""What NVIDIA's compiler says of our CUDA source; skipped where nvcc is missing."""

from pathlib import Path

import pytest

from mlc_controlnet.bench.compilers import nvidia
from mlc_controlnet.bench.compilers.chips import A100, H100, RTX_4090
from mlc_controlnet.bench.compilers.judge import judge_operations
from mlc_controlnet.errors import UserError


@pytest.fixture
def _nvcc() -> None:
    try:
        nvidia.find_toolkit()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.integration
@pytest.mark.usefixtures("_nvcc")
def test_the_multiply_adds_of_a_matmul_are_those_needed_on_every_chip() -> None:
    for _, judgement in judge_operations(("matmul_1024",), "float16", [A100, RTX_4090, H100]):
        (kernel,) = judgement.kernels
        assert 1.0 <= kernel.multiply_adds / judgement.multiply_adds < 1.1
        assert kernel.spilled == 0


@pytest.mark.usefixtures("_nvcc")
def test_source_that_nvcc_rejects_is_an_error_of_its_kernels(tmp_path: Path) -> None:
    wrong = 'extern "C" __global__ void kernel(float* x) { x[0] = one; }'
    codes, errors = nvidia.compile_for_nvidia(wrong, {"kernel": 32}, "sm_89", tmp_path)
    assert codes == {} and "one" in errors["kernel"]


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia.sys, "path", [])
    monkeypatch.setattr(nvidia.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"nvcc: got no such program.*\[compilers\]"):
        nvidia.find_toolkit()


def test_an_old_compiler_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, told in (("nvcc", "Cuda compilation tools, release 11.8, V11.8.89"), ("nvdisasm", "")):
        program = tmp_path / "nvidia" / "cu11" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{told}'\n")
        program.chmod(0o755)
    monkeypatch.setattr(nvidia.sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"release 11\.8.*CUDA 12"):
        nvidia.find_toolkit()


def test_registers_and_shared_memory_limit_the_warps_of_a_scheduler() -> None:
    assert nvidia._occupancy(128, 8192, 64, "sm_89") == 4
    assert nvidia._occupancy(32, 0, 256, "sm_80") == 16
    assert nvidia._occupancy(32, 49152, 64, "sm_89") == 1
