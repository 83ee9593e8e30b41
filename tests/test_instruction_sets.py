from pathlib import Path

import pytest

from mlc_controlnet import instruction_sets
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import (
    INSTRUCTION_SETS,
    host_instruction_sets,
    is_foreign,
    resolve_browser_instruction_sets,
    resolve_instruction_sets,
)

V3 = "fpu sse2 movbe abm xsave avx f16c fma bmi1 avx2 bmi2"
V4 = f"{V3} avx512f avx512dq avx512cd avx512bw avx512vl"


def cpuinfo(folder: Path, flags: str) -> Path:
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: A Processor\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: fpu\n")
    return file


@pytest.mark.parametrize(
    "flags,names",
    [
        (V4, ("x86-64-v4", "x86-64-v3")),
        (V3, ("x86-64-v3",)),
        (V4.replace("avx512vl", ""), ("x86-64-v3",)),
        ("sse2", ()),
    ],
    ids=["AVX-512", "AVX2", "AVX-512 in part", "SSE"],
)
def test_best_that_the_processor_has_comes_first(tmp_path: Path, flags: str, names: tuple[str, ...]) -> None:
    assert host_instruction_sets(cpuinfo(tmp_path, flags), "x86_64") == names


def test_every_arm_of_64_bits_has_neon(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert host_instruction_sets(file, "aarch64") == ("aarch64",)


def test_a_system_that_does_not_say_gets_the_least(tmp_path: Path) -> None:
    assert host_instruction_sets(tmp_path / "none", "x86_64") == ("x86-64-v3",)
    assert host_instruction_sets(tmp_path / "none", "riscv64") == ()


def test_portable_is_the_whole_family_and_native_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "host_machine", lambda: "x86_64")
    monkeypatch.setattr(instruction_sets, "host_instruction_sets", lambda: ("x86-64-v3",))
    assert resolve_instruction_sets("portable") == ("x86-64-v4", "x86-64-v3")
    assert resolve_instruction_sets("native") == ("x86-64-v3",)
    assert resolve_instruction_sets("aarch64") == ("aarch64",)


def test_a_processor_without_any_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "host_machine", lambda: "x86_64")
    monkeypatch.setattr(instruction_sets, "host_instruction_sets", lambda: ())
    with pytest.raises(UserError, match=r"--cpu native: .*a processor without x86-64-v3 \(AVX2 and FMA\)") as error:
        resolve_instruction_sets("native")
    assert all(name in str(error.value) for name in INSTRUCTION_SETS)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"--cpu.*x86-64-v2"):
        resolve_instruction_sets("x86-64-v2")


def test_browsers_have_instruction_sets_of_their_own_and_can_do_without() -> None:
    assert resolve_browser_instruction_sets("portable") == ("wasm-relaxed-simd", "wasm-simd128")
    assert resolve_browser_instruction_sets("wasm-simd128") == ("wasm-simd128",)
    assert resolve_browser_instruction_sets("none") == ()
    with pytest.raises(UserError, match=r"--cpu.*x86-64-v3"):
        resolve_browser_instruction_sets("x86-64-v3")
    assert is_foreign("wasm-simd128")
