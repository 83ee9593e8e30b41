"""WGSL -> SPIR-V as Chromium does it: its compiler Tint in Dawn's build for Node, then spirv-as of spirv-tools."""

import json
import math
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import WEB

ICD = Path("/usr/share/vulkan/icd.d")
INSTALL = "install mesa-vulkan-drivers: tests/bench/install_mesa.sh takes it from bookworm-backports on Debian 12"
TARGET = ("--target-env", "vulkan1.3")
# Instructions and operands of matrices that Debian 12's spirv-tools do not know (SPV_KHR_cooperative_matrix).
OPCODES = {"Type": 4456, "Load": 4457, "Store": 4458, "MulAdd": 4459}
OPERANDS = {"NoneKHR": 0, "None": 0, "NonPrivatePointer": 0x20}
CAPABILITY = 6022


@dataclass(frozen=True)
class Spirv:
    """A shader for Vulkan: its file, entry point, threads and bindings (set, binding, `uniform` or `storage`)."""

    code: Path
    entry: str
    threads: int
    bindings: tuple[tuple[int, int, str], ...]


def driver_manifest(driver: str) -> Path:
    """Return the manifest of a Vulkan driver of Mesa: `radeon` or `lvp`. Raises UserError if it is not installed."""
    found = sorted(ICD.glob(f"{driver}_icd*.json"))
    if not found:
        raise UserError("Mesa", f"no {driver}_icd.json in {ICD}", "Mesa 25 or newer", INSTALL)
    return found[0]


def check_programs() -> None:
    """Raise UserError if a program or package is missing that WGSL is compiled with."""
    if shutil.which("spirv-as") is None:
        raise UserError("spirv-as", "no such program", "spirv-tools", "apt install spirv-tools")
    if not (WEB / "node_modules" / "webgpu").is_dir():
        raise UserError("web/node_modules", "no webgpu", "npm's packages", "run npm --prefix web ci")
    driver_manifest("lvp")


def to_spirv(
    shaders: Mapping[str, str], folder: Path, adapter: Mapping[str, str] | None = None
) -> tuple[dict[str, Spirv], dict[str, str]]:
    """Compile WGSL, by name, into `folder`.

    Args:
        adapter: the environment in which Vulkan has the adapter whose features WGSL may use; None: any adapter.

    Returns:
        The shaders, and the errors of those that Tint or spirv-as rejects, by name.

    Raises:
        UserError: a program or package is missing.
    """
    check_programs()
    for name, wgsl in shaders.items():
        (folder / f"{name}.wgsl").write_text(wgsl, encoding="utf-8")
    if adapter is None:
        adapter = {"VK_DRIVER_FILES": str(driver_manifest("lvp")), "GALLIVM_PERF": "nopt"}
    environment = {**os.environ, **adapter}
    command = ["node", "bench/compilers/wgsl_to_spirv.mjs", str(folder)]
    run = subprocess.run(command, cwd=WEB, env=environment, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in web/ exited with {run.returncode}: {run.stderr[-1000:]}")
    errors = {file.removesuffix(".wgsl"): error for file, error in json.loads(run.stdout).items()}
    compiled = {}
    for name in shaders:
        if name not in errors:
            try:
                compiled[name] = assemble((folder / f"{name}.spvasm").read_text(), folder / f"{name}.spv")
            except subprocess.CalledProcessError as error:
                errors[name] = error.stderr.strip()[:200]
    return compiled, errors


def assemble(listing: str, file: Path) -> Spirv:
    """Write the SPIR-V of a listing of Dawn's to `file`. Raises CalledProcessError if spirv-as rejects it."""
    # Debian 12's spirv-tools do not know this mode, on which no code depends.
    lines = [line for line in listing.splitlines() if "maximal_reconv" not in line and "MaximallyReconv" not in line]
    lines = list(map(_in_words, lines))
    command = ["spirv-as", *TARGET, "-o", str(file), "-"]
    subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=True)
    decorations: dict[str, dict[str, int]] = defaultdict(dict)
    for name, kind, value in re.findall(r"OpDecorate (%\S+) (DescriptorSet|Binding) (\d+)", listing):
        decorations[name][kind] = int(value)
    bindings = []
    for name, of in decorations.items():
        storage = re.search(re.escape(name) + r" = OpVariable %\S+ (\w+)", listing)
        assert storage is not None, name
        bindings.append((of["DescriptorSet"], of["Binding"], "uniform" if storage[1] == "Uniform" else "storage"))
    entry = re.search(r'OpEntryPoint GLCompute %\S+ "([^"]+)"', listing)
    size = re.search(r"OpExecutionMode %\S+ LocalSize (\d+) (\d+) (\d+)", listing)
    assert entry is not None and size is not None
    return Spirv(file, entry[1], math.prod(map(int, size.groups())), tuple(bindings))


def _in_words(line: str) -> str:
    """Write an instruction of matrices as spirv-as takes what it does not know: by its number of words and opcode."""
    line = line.replace("OpCapability CooperativeMatrixKHR", f"OpCapability !{CAPABILITY}")
    found = re.fullmatch(r"\s*(?:(%\w+) = )?Op(Type|)CooperativeMatrix(Load|Store|MulAdd|)KHR (.*)", line)
    if found is None:
        return line
    result, operands = found[1], [str(OPERANDS.get(operand, operand)) for operand in found[4].split()]
    if result is not None:
        operands.insert(0 if found[2] else 1, result)  # behind its type, which a type lacks
    words = f"!{(len(operands) + 1) << 16 | OPCODES[found[2] or found[3]]} {' '.join(operands)}"
    return f"OpNoLine\n{words}"  # which ends the instruction before: it would take words for its operands
