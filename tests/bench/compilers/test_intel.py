from pathlib import Path

import pytest
import tvm

from mlc_controlnet.bench.compilers import intel
from mlc_controlnet.bench.compilers.kernels import write_kernels
from mlc_controlnet.bench.operations.cases import operation_cases
from mlc_controlnet.errors import UserError

INFO = """\x00\x01version:         '1.20'
kernels:
  - name:            first_kernel
    execution_env:
      barrier_count:   1
      grf_count:       128
      simd_size:       16
      slm_size:        8768
    per_thread_memory_buffers:
      - type:            scratch
  - name:            second_kernel
    execution_env:
      grf_count:       256
      simd_size:       8
      spill_size:      4096
"""


def test_registers_spills_and_width_are_read_from_the_binary() -> None:
    assert intel.read_kernels(INFO) == [
        intel.IntelKernel("first_kernel", 16, 128, 0, 8768),
        intel.IntelKernel("second_kernel", 8, 256, 4096, 0),
    ]


def test_a_missing_compiler_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(intel.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"ocloc: got no such program.*intel-opencl-icd"):
        intel.compile_for_intel("", "acm-g10", tmp_path)


@pytest.fixture
def _ocloc() -> None:
    if intel.shutil.which("ocloc") is None:
        pytest.skip("no ocloc: apt install intel-opencl-icd")


@pytest.mark.usefixtures("_ocloc")
def test_source_that_the_compiler_rejects_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one"):
        intel.compile_for_intel("kernel void k(global float* x) { x[0] = one; }", "acm-g10", tmp_path)


@pytest.mark.integration
@pytest.mark.usefixtures("_ocloc")
@pytest.mark.parametrize("device", intel.DEVICES)
def test_a_convolution_does_not_spill(device: str, tmp_path: Path) -> None:
    cases = operation_cases(("conv3x3_640",), False, "float16")
    name = cases.cases[1].name
    source, _ = write_kernels(tvm.IRModule({tvm.ir.GlobalVar(name): cases.module[name]}), "opencl")
    kernels = intel.compile_for_intel(source, device, tmp_path)
    assert [kernel.spilled_bytes for kernel in kernels] == [0] * len(kernels)
