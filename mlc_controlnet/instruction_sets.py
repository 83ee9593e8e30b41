"""The instruction sets that libraries for processors are compiled for, and which of them this machine has.

x86-64-v3 and x86-64-v4 are the levels of the x86-64 psABI: AVX2 and FMA, and AVX-512. aarch64 has Neon. Browsers have
WebAssembly's vectors of 128 bits on any machine, and the newer ones its relaxed instructions too.
"""

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.machine import processor_name

PORTABLE, NATIVE, NONE = "portable", "native", "none"
BUILD_COMMAND = "python -m mlc_controlnet build --target llvm"


@dataclass(frozen=True)
class InstructionSet:
    """One level of a family of processors.

    Attributes:
        machine: the family, by the name that `platform.machine` gives it on Linux.
        flags: the words of /proc/cpuinfo that a processor must have.
        tvm_target: TVM's target description, with the width of a vector in bits.
        description: for readers.
    """

    machine: str
    flags: frozenset[str]
    tvm_target: dict[str, object]
    description: str


_V3 = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
_V4 = _V3 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
_ARM_SYSTEM = "apple-darwin" if sys.platform == "darwin" else "unknown-linux-gnu"
# The best of each family comes first.
INSTRUCTION_SETS: dict[str, InstructionSet] = {
    "x86-64-v4": InstructionSet(
        "x86_64", _V4, {"kind": "llvm", "mcpu": "x86-64-v4", "vector-width": 512, "num-cores": 2}, "AVX-512"
    ),
    "x86-64-v3": InstructionSet(
        "x86_64", _V3, {"kind": "llvm", "mcpu": "x86-64-v3", "vector-width": 256, "num-cores": 2}, "AVX2 and FMA"
    ),
    "aarch64": InstructionSet(
        "aarch64",
        frozenset(),
        {
            "kind": "llvm",
            "mtriple": f"aarch64-{_ARM_SYSTEM}",
            "mattr": ["+neon"],
            "vector-width": 128,
            "num-cores": 2,
        },
        "Neon",
    ),
}


_WASM_TARGET: dict[str, object] = {
    "kind": "llvm",
    "mtriple": "wasm32-unknown-unknown-wasm",
    "vector-width": 128,
    "num-cores": 2,
}
# Those of browsers, the best first. LLVM contracts products and sums to relaxed multiply-adds.
BROWSER_INSTRUCTION_SETS: dict[str, InstructionSet] = {
    "wasm-relaxed-simd": InstructionSet(
        "wasm32", frozenset(), {**_WASM_TARGET, "mattr": ["+simd128", "+relaxed-simd"]}, "WebAssembly's relaxed SIMD"
    ),
    "wasm-simd128": InstructionSet(
        "wasm32", frozenset(), {**_WASM_TARGET, "mattr": ["+simd128"]}, "WebAssembly's SIMD"
    ),
}
ALL_INSTRUCTION_SETS = INSTRUCTION_SETS | BROWSER_INSTRUCTION_SETS


def host_machine() -> str:
    """Return the family of this machine's processor: x86_64, aarch64, ..."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())


def host_instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> tuple[str, ...]:
    """Return the names of INSTRUCTION_SETS that this machine's processor has, the best first.

    A system without `cpuinfo` does not say what its processor has: then the last, which is the least, is assumed.
    """
    family = host_machine() if machine is None else machine
    names = [name for name, known in INSTRUCTION_SETS.items() if known.machine == family]
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return tuple(names[-1:])
    flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    return tuple(name for name in names if INSTRUCTION_SETS[name].flags <= flags)


def best_of_host() -> str | None:
    """Return the best of INSTRUCTION_SETS that this machine's processor has; None if it has none."""
    return next(iter(host_instruction_sets()), None)


def is_foreign(name: str) -> bool:
    """Return whether this machine's processor is of another family than the instruction set, if there is one."""
    return bool(name) and ALL_INSTRUCTION_SETS[name].machine != host_machine()


def resolve_instruction_sets(option: str) -> tuple[str, ...]:
    """Return the instruction sets of `--cpu`: all of this machine's family, the best that it has, or one by name.

    Raises:
        UserError: there is no such instruction set, or this machine's processor has none of them.
    """
    check_one_of("--cpu", option, (PORTABLE, NATIVE, *INSTRUCTION_SETS))
    if option not in (PORTABLE, NATIVE):
        return (option,)
    family = tuple(name for name, known in INSTRUCTION_SETS.items() if known.machine == host_machine())
    had = family if option == PORTABLE else host_instruction_sets()[:1]
    if not had:
        names = ", ".join(INSTRUCTION_SETS)
        raise UserError(
            f"--cpu {option}", without_any(), f"one of {names}", "name the one to build for: --cpu x86-64-v3"
        )
    return had


def resolve_browser_instruction_sets(option: str) -> tuple[str, ...]:
    """Return those of `--cpu` for a bundle that runs in browsers: all of BROWSER_INSTRUCTION_SETS, one, or none.

    Raises:
        UserError: there is no such instruction set.
    """
    check_one_of("--cpu", option, (PORTABLE, NONE, *BROWSER_INSTRUCTION_SETS))
    if option == NONE:
        return ()
    return tuple(BROWSER_INSTRUCTION_SETS) if option == PORTABLE else (option,)


def without_any() -> str:
    """Say that this machine's processor has none of INSTRUCTION_SETS."""
    needed = {known.machine: f"{name} ({known.description})" for name, known in INSTRUCTION_SETS.items()}
    least = needed.get(host_machine(), "any instruction set that libraries are compiled for")
    return f"{processor_name()}, a processor without {least}"
