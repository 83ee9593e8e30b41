"""NVIDIA's compiler, on a machine without a GPU: registers, spills, occupancy and instructions of our CUDA source."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.amd_loops import trips_of
from mlc_controlnet.bench.compilers.code import Code
from mlc_controlnet.bench.compilers.nvidia_isa import WARP, cost_of, find_loops, parse
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.integers import ceil_div

LEAST_CUDA = (12, 0)  # knows sm_89 and sm_90
INSTALL = "pip install mlc-controlnet[compilers] (350 MB), or put CUDA's nvcc on PATH"
# Of a multiprocessor, by compute capability: warps, workgroups, KiB of shared memory.
LIMITS = {"sm_80": (64, 32, 164), "sm_89": (48, 24, 100), "sm_90": (64, 32, 228)}
REGISTERS, RESERVED_BYTES, SCHEDULERS = 65536, 1024, 4


@dataclass(frozen=True)
class Toolkit:
    """Programs of CUDA: nvcc and nvdisasm, the folders of headers, and the version."""

    nvcc: Path
    nvdisasm: Path
    include: tuple[Path, ...]
    version: str


def find_toolkit() -> Toolkit:
    """Find nvcc among this Python's packages, or on PATH. Raises UserError if it is missing or too old."""
    places = [path for folder in sys.path for path in Path(folder).glob("nvidia/cu*/bin/nvcc")]
    on_path = shutil.which("nvcc")
    places += [Path(on_path)] if on_path else []
    if not places:
        raise UserError("nvcc", "no such program", "NVIDIA's compiler", INSTALL)
    nvcc = places[0].resolve()
    nvdisasm = nvcc.with_name("nvdisasm")
    if not nvdisasm.exists():
        raise UserError("nvdisasm", f"none beside {nvcc}", "NVIDIA's disassembler", INSTALL)
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    release = re.search(r"release (\d+)\.(\d+)", told)
    if release is None or (int(release[1]), int(release[2])) < LEAST_CUDA:
        got = release[0] if release else "a program that does not tell its release"
        raise UserError("nvcc", got, "CUDA 12 or newer", INSTALL)
    root = nvcc.parents[1] / "include"
    return Toolkit(nvcc, nvdisasm, (root, root / "cccl"), f"{release[1]}.{release[2]}")


def compile_for_nvidia(
    source: str, threads: dict[str, int], architecture: str, folder: Path
) -> tuple[dict[str, Code], dict[str, str]]:
    """Compile CUDA source in `folder`.

    Args:
        threads: kernel -> threads of a workgroup.
        architecture: sm_80, sm_89 or sm_90.

    Returns:
        The code of each kernel; all kernels' error if nvcc rejects the source.

    Raises:
        UserError: nvcc is missing or too old.
    """
    tools = find_toolkit()
    file, cubin = folder / "kernels.cu", folder / "kernels.cubin"
    file.write_text(source, encoding="utf-8")
    headers = [word for path in tools.include for word in ("-I", str(path))]
    options = ["-w", f"-arch={architecture}", "-cubin", "-Xptxas", "-v", *headers]
    command = [str(tools.nvcc), *options, "-o", str(cubin), str(file)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        lines = [line for line in run.stderr.splitlines() if "error" in line] or [f"exit code {run.returncode}"]
        return {}, dict.fromkeys(threads, lines[0][:200])
    told = _resources(run.stderr)
    command = [str(tools.nvdisasm), "-c", str(cubin)]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    compiled = {}
    for name, blocks in parse(listing).items():
        registers, spilled, shared = told[name]
        loops = find_loops(blocks)
        compiled[name] = Code(
            wave=WARP,
            registers=registers,
            spilled=spilled,
            workgroup_bytes=shared,
            occupancy=_occupancy(registers, shared, threads[name], architecture),
            blocks=tuple(blocks),
            loops=tuple(loops),
            costs=tuple(
                sum((cost_of(i, architecture) for i in block.instructions), Cost()) * trips_of(loops, index)
                for index, block in enumerate(blocks)
            ),
        )
    return compiled, {}


def _resources(told: str) -> dict[str, tuple[int, int, int]]:
    """Read ptxas's report: kernel -> registers, spilled numbers of four bytes, bytes of shared memory."""
    found = {}
    for part in told.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        spilled = re.search(r"(\d+) bytes spill stores", part)
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        assert registers is not None
        found[name] = int(registers[1]), int(spilled[1]) // 4 if spilled else 0, int(shared[1]) if shared else 0
    return found


def _occupancy(registers: int, shared: int, threads: int, architecture: str) -> int:
    """Warps that a scheduler holds: registers come in units of 256 a warp."""
    most_warps, most_workgroups, kibibytes = LIMITS[architecture]
    warps = ceil_div(threads, WARP)
    by_registers = REGISTERS // (ceil_div(registers * WARP, 256) * 256 * warps)
    by_memory = kibibytes * 1024 // (shared + RESERVED_BYTES)
    return min(by_registers, by_memory, most_workgroups, most_warps // warps) * warps // SCHEDULERS
