"""One definition of a kernel serves every GPU: source for targets whose compilers and devices are not here."""

from pathlib import Path

import pytest
import tvm

from mlc_controlnet.capture import CapturedModel
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.compile.sources import SUFFIXES, Source, generate_source, write_source
from mlc_controlnet.components import CONTROL_EMBEDDING, TEXT_ENCODER
from mlc_controlnet.config import TARGETS
from mlc_controlnet.errors import UserError
from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.toolchain.gpu_compilers import check_device

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=SUFFIXES)
def generated(cleaned: CapturedModel, request: pytest.FixtureRequest) -> tuple[Source, tvm.target.Target]:
    """Two small components: the command takes the whole model, and minutes."""
    target = tvm_target(TARGETS[request.param])
    some = tvm.IRModule({name: cleaned.module[name] for name in (TEXT_ENCODER, CONTROL_EMBEDDING)})
    return generate_source(Pipeline(target).run(some, until="schedule"), target), target


def test_every_kernel_has_source_within_the_targets_limits(
    generated: tuple[Source, tvm.target.Target],
) -> None:
    source, target = generated
    assert len(source.kernels) > 20
    assert set(source.bodies) == set(source.kernels)
    assert source.faults(target) == []


def test_a_kernel_without_code_or_over_a_limit_is_named(generated: tuple[Source, tvm.target.Target]) -> None:
    source, _ = generated
    name = max(source.kernels, key=lambda name: source.kernels[name].threads)
    small = tvm.target.Target({"kind": "opencl", "max_threads_per_block": 1, "max_shared_memory_per_block": 0})
    faults = Source(source.text, {**source.bodies, name: ""}, source.kernels).faults(small)
    assert f"{name}: no definition" in faults
    assert f"{name}: {source.kernels[name].threads} threads per workgroup, the limit is 1" in faults


def test_one_components_kernels_are_written(tmp_path: Path) -> None:
    begun: list[str] = []
    said = write_source("cuda", "circles", "float32", tmp_path, [CONTROL_EMBEDDING], begun.append)
    assert begun == ["capture circles ...", "schedule its kernels for cuda ...", "generate their source ..."]
    file = tmp_path / "circles-float32.cu"
    assert said.startswith(f"{file}: ")
    kernels = int(said.removeprefix(f"{file}: ").split()[0])
    definitions = [line for line in file.read_text().splitlines() if "__global__" in line and line.endswith("{")]
    assert len(definitions) == kernels > 2


def test_a_file_in_the_place_of_the_folder_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlc_controlnet.compile.sources.load_checkpoint", lambda *_, **__: pytest.fail("it was loaded"))
    (tmp_path / "notes").touch()
    with pytest.raises(UserError, match=r"--out: got .*notes, where .*notes is a file"):
        write_source("cuda", "circles", "float32", tmp_path / "notes")


def test_an_unknown_component_is_refused() -> None:
    with pytest.raises(UserError, match=r"--component: got 'decoder', wanted one of text_encoder, "):
        write_source("cuda", "circles", "float16", Path(), ["decoder"])


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(UserError, match=r"--target: got 'vulkan', wanted one of cuda, rocm, metal, opencl"):
        write_source("vulkan", "circles", "float16", Path())


def test_a_native_gpu_that_is_not_here_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm.runtime.Device, "exist", False)
    with pytest.raises(UserError, match=r"--target cuda.*python -m mlc_controlnet sources --target cuda"):
        check_device("cuda")
    check_device("webgpu")
    check_device("llvm")
