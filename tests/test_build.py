"""build.py with components alone: a bundle that says what it holds, and a pipeline that says what it lacks."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mlc_controlnet.build
from mlc_controlnet.build import (
    SAME_DB,
    build,
    compare_with_torch,
    for_browsers_that_hold,
    load_model,
    packs_control_loras,
)
from mlc_controlnet.bundle.reader import Bundle, verify_bundle
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.config import BuildConfig, WeightsOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.pipeline import ControlNetPipeline

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def text_encoder_alone(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("alone") / "bundle"
    return build(
        BuildConfig(str(random_model), "llvm", ("float32",), out, ROOT / "tuning_db", components=("text_encoder",))
    )


def test_a_component_alone_is_a_bundle_that_says_so(text_encoder_alone: Bundle) -> None:
    manifest = verify_bundle(text_encoder_alone.path).manifest
    assert list(manifest.components) == ["text_encoder"]
    assert set(manifest.parity_db) == set(manifest.libraries[0].launches) == {"text_encoder"}
    assert all(record.name.startswith("text_encoder.") for record in manifest.params.records)


def test_an_engine_runs_the_component(text_encoder_alone: Bundle) -> None:
    with Engine.load(text_encoder_alone) as engine:
        context = engine.text_encoder(np.zeros((1, 77), np.int32)).tensor.numpy()
    assert context.shape == (1, 77, 64)
    assert np.isfinite(context).all()


def test_a_pipeline_names_the_components_that_are_missing(text_encoder_alone: Bundle) -> None:
    with pytest.raises(UserError, match=r"got no control_embedding, controlnet, unet, vae_decoder, wanted"):
        ControlNetPipeline.from_bundle(text_encoder_alone)


def test_a_bundle_for_browsers_is_compared_on_this_machines_processor(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[str, bool]] = []

    def compile_in_its_place(*arguments: Any, shipped: bool) -> Any:
        compiled.append((arguments[3].target, shipped))
        return compile_library(*arguments, shipped=shipped)

    monkeypatch.setattr(mlc_controlnet.build, "compile_library", compile_in_its_place)
    config = BuildConfig(str(random_model), "webgpu", ("float32",), tmp_path / "bundle", ROOT / "tuning_db")
    bundle = build(dataclasses.replace(config, components=("text_encoder",)))
    assert [library.device for library in bundle.manifest.libraries] == ["webgpu"]
    assert compiled == [("llvm", False)]
    assert list(bundle.manifest.parity_db) == ["text_encoder"]
    assert 60 <= bundle.manifest.parity_db["text_encoder"]["float32"] < SAME_DB


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").write_bytes(b"\x80\x04.")
    command = [
        sys.executable,
        "build.py",
        "--target",
        "llvm",
        "--model",
        tmp_path / "model.ckpt",
        "--out",
        tmp_path / "b",
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path}/model.ckpt: got no zip archive")
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "b").exists()


def test_a_sampler_that_no_table_can_hold_is_named_before_anything_is_compiled(
    random_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(random_model, tmp_path / "model")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "clip_sample": True}))
    load_model(BuildConfig(str(folder), "llvm", ("float32",), tmp_path / "bundle", ROOT / "tuning_db"))
    assert "notice: left out sampler ddim: clip_sample true in scheduler_config.json\n" in capsys.readouterr().err


@pytest.mark.parametrize(("numbers", "fits"), [(2**29, True), (2**29 + 1, False)])
def test_a_model_that_webassembly_cannot_hold_gets_no_library_for_it(
    numbers: int, fits: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: numbers)])
    config = BuildConfig("large", "webgpu", ("float16",), tmp_path, tmp_path, instruction_sets=("wasm-simd128",))
    kept = for_browsers_that_hold(SimpleNamespace(parts={"unet": part}), config)
    assert kept.instruction_sets == (("wasm-simd128",) if fits else ())
    assert kept.captured_dtypes == (("float16", "float32") if fits else ("float16",))
    assert ("left out the libraries for browsers without a GPU" in str(capsys.readouterr())) != fits


@pytest.mark.parametrize(
    ("options", "packs"),
    [
        ((), False),
        (("mixed",), True),
        (("unet=int8", "controlnet=palette6"), True),
        (("unet=palette6",), False),
        (("mixed", "unet=float16"), False),
        (("text_encoder=int8",), False),
    ],
)
def test_control_loras_are_merged_where_the_unet_and_they_have_few_bits(
    options: tuple[str, ...], packs: bool, tmp_path: Path
) -> None:
    weights = tuple(map(WeightsOption.parse, options))
    config = BuildConfig("circles", "llvm", ("float32",), tmp_path / "out", tmp_path, weights=weights)
    assert packs_control_loras(config) is packs


@pytest.mark.parametrize(
    "here,measured",
    [
        (("x86-64-v3", "x86-64-v4"), ["v3.so", "v4.so"]),
        (("x86-64-v3",), ["v3.so"]),
        (("aarch64",), ["in its place.so"]),
    ],
    ids=["with AVX-512", "without", "on another processor"],
)
def test_a_module_is_compared_where_a_library_of_it_runs(
    here: tuple[str, ...], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are in float16 already: they are not narrowed twice."""
    model = SimpleNamespace(module=None, dtype="float32", memory_dtype="float16", merges={})
    libraries = [
        SimpleNamespace(path=Path(f"{short}.so"), description=SimpleNamespace(instruction_set=name), model=model)
        for short, name in (("v4", "x86-64-v4"), ("v3", "x86-64-v3"))
    ]
    seen: list[str] = []

    def measure(_checkpoint: object, _model: object, path: Path, *_: object) -> dict[str, float]:
        seen.append(path.name)
        return {"unet": 60.0}

    monkeypatch.setattr(mlc_controlnet.build, "host_instruction_sets", lambda: here)
    monkeypatch.setattr(mlc_controlnet.build, "compile_library", lambda *_, **__: (Path("in its place.so"), None))
    monkeypatch.setattr(mlc_controlnet.build, "measure_parity", measure)
    checkpoint = SimpleNamespace(call_specs={"unet": SimpleNamespace(name="unet")})
    config = BuildConfig(
        model="circles", target="llvm", dtypes=("float32",), out=Path("out"), tuning_db=Path("records")
    )
    parity = compare_with_torch(libraries, checkpoint, config, {}, None)
    assert sorted(seen) == measured
    assert parity == {"unet": {"float32": 60.0}}
