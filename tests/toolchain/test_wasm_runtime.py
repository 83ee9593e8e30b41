"""The runtime's cache. The compiler is replaced by one that writes empty files; test_link_wasm.py uses the real one."""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from mlc_controlnet.toolchain import recipe
from mlc_controlnet.toolchain.wasm_runtime import RuntimeInputs, build_runtime, installed_inputs, user_cache_folder
from mlc_controlnet.toolchain.zig import Zig


class RecordingZig(Zig):
    """Writes the files that zig would, and keeps the commands it was given."""

    commands: list[list[str]]
    fails_on: str

    def __init__(self, zig: Zig, fails_on: str = "") -> None:
        super().__init__(zig.executable, zig.lib)
        object.__setattr__(self, "commands", [])
        object.__setattr__(self, "fails_on", fails_on)

    def run(self, arguments: Sequence[str | Path], build_cache: Path | None = None) -> None:
        command = [str(argument) for argument in arguments]
        self.commands.append(command)
        if self.fails_on and any(self.fails_on in argument for argument in command):
            raise RuntimeError("zig exited with 1")
        Path(command[command.index("-o") + 1]).touch()
        if "-c" not in command:
            assert build_cache is not None
            for name in recipe.ZIG_ARCHIVES:
                (build_cache / "o" / name).mkdir(parents=True)
                (build_cache / "o" / name / name).write_text(name, encoding="utf-8")


@pytest.fixture
def inputs(tmp_path: Path) -> RuntimeInputs:
    installed = installed_inputs()
    overlay = tmp_path / "overlay"
    shutil.copytree(installed.overlay, overlay)
    return replace(installed, zig=RecordingZig(installed.zig), overlay=overlay)


def commands(inputs: RuntimeInputs) -> list[list[str]]:
    assert isinstance(inputs.zig, RecordingZig)
    return inputs.zig.commands


def test_the_key_changes_when_a_header_changes(inputs: RuntimeInputs) -> None:
    before = inputs.key()
    header = inputs.overlay / "src/support/bytes_io.h"
    header.write_text(header.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert inputs.key() != before


def test_the_key_changes_when_a_header_moves(inputs: RuntimeInputs) -> None:
    before = inputs.key()
    (inputs.overlay / "src/support/bytes_io.h").rename(inputs.overlay / "src/support/bytes.h")
    assert inputs.key() != before


def test_the_key_changes_with_a_wheels_version(inputs: RuntimeInputs) -> None:
    newer = (*inputs.versions[:-1], (inputs.versions[-1][0], "99.0"))
    assert replace(inputs, versions=newer).key() != inputs.key()


def test_the_key_is_the_same_wherever_the_package_lies(inputs: RuntimeInputs) -> None:
    assert inputs.key() == installed_inputs().key()


def test_a_second_build_compiles_nothing(inputs: RuntimeInputs, tmp_path: Path) -> None:
    first = build_runtime(tmp_path / "cache", inputs)
    compiled = len(commands(inputs))
    assert compiled == len(first.objects()) + 1  # and once for the archives
    assert build_runtime(tmp_path / "cache", inputs) == first
    assert len(commands(inputs)) == compiled


def test_a_build_leaves_only_the_runtime_and_its_lock(inputs: RuntimeInputs, tmp_path: Path) -> None:
    runtime = build_runtime(tmp_path / "cache", inputs)
    assert {path for path in (tmp_path / "cache").iterdir() if path.is_dir()} == {runtime.folder}
    assert all(path.is_file() for path in [*runtime.objects(), *runtime.archives()])


def test_a_build_that_fails_leaves_nothing_that_looks_whole(inputs: RuntimeInputs, tmp_path: Path) -> None:
    broken = replace(inputs, zig=RecordingZig(inputs.zig, fails_on="webgpu_runtime.cc"))
    with pytest.raises(RuntimeError, match="zig exited with 1"):
        build_runtime(tmp_path / "cache", broken)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    build_runtime(tmp_path / "cache", inputs)
    assert commands(inputs)


def test_what_a_killed_build_left_is_removed_by_the_next(inputs: RuntimeInputs, tmp_path: Path) -> None:
    left = tmp_path / "cache" / f"wasm-runtime-{inputs.key()}.killed" / "tree"
    left.mkdir(parents=True)
    runtime = build_runtime(tmp_path / "cache", inputs)
    assert {path for path in (tmp_path / "cache").iterdir() if path.is_dir()} == {runtime.folder}


def test_two_builds_at_once_compile_once(inputs: RuntimeInputs, tmp_path: Path) -> None:
    together = threading.Barrier(2)

    def build() -> Path:
        together.wait()
        return build_runtime(tmp_path / "cache", inputs).folder

    with ThreadPoolExecutor(2) as pool:
        folders = {job.result() for job in [pool.submit(build), pool.submit(build)]}
    assert len(folders) == 1
    archive_builds = [command for command in commands(inputs) if "-c" not in command]
    assert len(archive_builds) == 1


def test_a_zig_that_builds_two_different_archives_is_refused(inputs: RuntimeInputs, tmp_path: Path) -> None:
    class TwoLibcs(RecordingZig):
        def run(self, arguments: Sequence[str | Path], build_cache: Path | None = None) -> None:
            super().run(arguments, build_cache)
            if "-c" not in arguments:
                assert build_cache is not None
                (build_cache / "o" / "other").mkdir()
                (build_cache / "o" / "other" / "libc.a").write_text("another libc", encoding="utf-8")

    with pytest.raises(RuntimeError, match=r"libc\.a: zig built 2, wanted one"):
        build_runtime(tmp_path / "cache", replace(inputs, zig=TwoLibcs(inputs.zig)))


def test_the_cache_is_where_xdg_says_or_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert user_cache_folder() == tmp_path / "elsewhere" / "mlc-controlnet"
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert user_cache_folder() == tmp_path / ".cache" / "mlc-controlnet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_folder() == tmp_path / ".cache" / "mlc-controlnet"
