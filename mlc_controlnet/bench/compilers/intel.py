"""Intel's offline compiler ocloc, on a machine without a GPU: registers, spills and SIMD width of our OpenCL source."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.errors import UserError

DEVICES = {"acm-g10": "Arc A770", "tgllp": "Iris Xe (11th generation)"}  # ocloc's name -> product


@dataclass(frozen=True)
class IntelKernel:
    """What the compiler says of a kernel.

    Attributes:
        simd: threads of a hardware thread, of 8, 16 or 32.
        registers: of a hardware thread, of 32 bytes each; 128, or 256 where the compiler doubles them.
        spilled_bytes: of a hardware thread's values that are kept in memory instead.
        workgroup_bytes: workgroup memory.
    """

    name: str
    simd: int
    registers: int
    spilled_bytes: int
    workgroup_bytes: int


@dataclass(frozen=True)
class IntelJudgement:
    """What the compiler says of an operation.

    Attributes:
        name, title: the operation's.
        kernels: as the library has them.
        error: the compiler's first one if it rejects the source; else empty.
    """

    name: str
    title: str
    kernels: tuple[IntelKernel, ...]
    error: str


def compiler_version() -> str:
    """Return the version of ocloc's package. Raises UserError if it is missing."""
    _check_compiler()
    with tempfile.TemporaryDirectory() as folder:  # the answer is a file
        subprocess.run(["ocloc", "query", "OCL_DRIVER_VERSION"], cwd=folder, capture_output=True, check=False)
        answer = Path(folder) / "OCL_DRIVER_VERSION"
        return answer.read_text(encoding="utf-8").strip() if answer.exists() else "unknown"


def _check_compiler() -> None:
    if shutil.which("ocloc") is None:
        raise UserError("ocloc", "no such program", "Intel's offline compiler", "apt install intel-opencl-icd")


def compile_for_intel(source: str, device: str, folder: Path) -> list[IntelKernel]:
    """Compile OpenCL C in `folder` for a key of DEVICES.

    Raises:
        UserError: ocloc is missing.
        ValueError: the compiler rejects the source; the message is its first error.
    """
    _check_compiler()
    file, binary = folder / "kernels.cl", folder / "kernels"
    file.write_text(source, encoding="utf-8")
    binary.unlink(missing_ok=True)
    command = ["ocloc", "compile", "-file", str(file), "-device", device, "-out_dir", str(folder), "-output", "kernels"]
    command += [
        "-output_no_suffix",
        "-internal_options",
        "-cl-intel-allow-zebin",
    ]  # the format that names these figures
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0 or not binary.exists():
        told = (run.stdout + run.stderr).splitlines()
        raise ValueError(next((line for line in told if "error" in line), f"exit code {run.returncode}")[:200])
    return read_kernels(binary.read_bytes().decode(errors="replace"))


def read_kernels(text: str) -> list[IntelKernel]:
    """Read section .ze_info of a binary: YAML, of which only these numbers are wanted."""
    kernels = []
    for part in re.split(r"\n +- name: +", text[text.find("kernels:") :])[1:]:
        name, _, rest = part.partition("\n")
        numbers = {key: int(value) for key, value in re.findall(r"\n +(\w+): +(\d+)(?=\n)", f"\n{rest}")}
        if "simd_size" in numbers:
            grf, spilled, shared = (numbers.get(key, 0) for key in ("grf_count", "spill_size", "slm_size"))
            kernels.append(IntelKernel(name.strip(), numbers["simd_size"], grf, spilled, shared))
    return kernels
