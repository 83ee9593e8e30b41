"""AMD's compiler in Mesa's driver RADV, for a chip that is not there: registers, occupancy, instructions."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlc_controlnet.bench.compilers.amd_isa import Cost, cost_of, parse
from mlc_controlnet.bench.compilers.amd_loops import find_loops, trips_of
from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.code import Code
from mlc_controlnet.bench.compilers.spirv import INSTALL, Spirv, check_programs, driver_manifest
from mlc_controlnet.errors import UserError

PROCESS = Path(__file__).with_name("radv_process.py")
LEAST_MESA = (25, 0, 0)
RDNA_3 = ("navi31", "navi32", "navi33")


def compile_for_amd(
    shaders: Mapping[str, Spirv], chip: Chip, uniforms: Mapping[str, Sequence[int]] | None = None
) -> tuple[dict[str, Code], dict[str, str]]:
    """Compile shaders for `chip`.

    Args:
        uniforms: shader -> the words of its uniform buffer, where trip counts depend on them.

    Returns:
        The code, and the errors of the shaders that the compiler rejects, by name.

    Raises:
        UserError: Mesa is missing or too old.
    """
    outcomes: dict[str, dict[str, object]] = {}
    errors: dict[str, str] = {}
    waiting = dict(shaders)
    while waiting:
        done = _run(waiting, chip)
        outcomes |= done
        waiting = {name: shader for name, shader in waiting.items() if name not in done}
        if waiting:  # the driver ended at the first of them
            name = next(iter(waiting))
            errors[name] = "the compiler crashed"
            del waiting[name]
    compiled = {}
    for name, outcome in outcomes.items():
        if "error" in outcome:
            errors[name] = str(outcome["error"])
        else:
            compiled[name] = _code(outcome, chip, (uniforms or {}).get(name, ()))
    return compiled, errors


def mesa_version(chip: Chip) -> str:
    """Return Mesa's version. Raises UserError if it is missing or too old, or what it needs is missing."""
    check_programs()
    return ".".join(map(str, _start([], chip)[0]))


def _run(shaders: Mapping[str, Spirv], chip: Chip) -> dict[str, dict[str, object]]:
    jobs = [
        json.dumps({"name": name, "code": str(shader.code), "entry": shader.entry, "bindings": shader.bindings})
        for name, shader in shaders.items()
    ]
    return {outcome["name"]: outcome for outcome in map(json.loads, _start(jobs, chip)[1])}


def _start(jobs: Sequence[str], chip: Chip) -> tuple[tuple[int, ...], list[str]]:
    """Start the compiler; return Mesa's version and a line for each job that it finished."""
    environment = {
        **os.environ,
        "RADV_FORCE_FAMILY": chip.architecture,
        "VK_DRIVER_FILES": str(driver_manifest("radeon")),
        "VK_LOADER_LAYERS_DISABLE": "*",
        "MESA_SHADER_CACHE_DISABLE": "true",  # cached code has no listing
    }
    text = "".join(f"{job}\n" for job in jobs)
    command = [sys.executable, str(PROCESS)]
    run = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=False)
    first, *lines = run.stdout.splitlines() or [""]
    if not first:
        reasons = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
        raise UserError("RADV", reasons[-1], "Mesa 25 or newer, and libvulkan1", INSTALL)
    mesa = tuple(json.loads(first)["mesa"])
    if mesa < LEAST_MESA:
        raise UserError("Mesa", ".".join(map(str, mesa)), "25 or newer", INSTALL)
    return mesa, lines


def _code(outcome: Mapping[str, object], chip: Chip, uniforms: Sequence[int]) -> Code:
    statistics: dict[str, int] = outcome["statistics"]  # type: ignore[assignment]
    wave = int(outcome["wave"])  # type: ignore[call-overload]
    blocks = parse(str(outcome["assembly"]))
    loops = find_loops(blocks, uniforms)
    dual_issue = chip.architecture in RDNA_3
    return Code(
        wave=wave,
        registers=statistics["VGPRs"],
        spilled=statistics["Spilled VGPRs"],
        workgroup_bytes=statistics["LDS size"],
        occupancy=statistics["Subgroups per SIMD"],
        blocks=tuple(blocks),
        loops=tuple(loops),
        costs=tuple(
            sum((cost_of(i, wave, dual_issue) for i in block.instructions), Cost()) * trips_of(loops, index)
            for index, block in enumerate(blocks)
        ),
    )
