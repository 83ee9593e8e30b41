"""Control-LoRAs that share their UNet's weights: the bundle holds factors, and draws what diffusers draws."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    MultiControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)

from mlc_controlnet.add_controlnet import add_controlnets
from mlc_controlnet.bundle.params import MergedParam
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.checkpoint import load_checkpoint
from mlc_controlnet.config import ControlNetOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.parity import THRESHOLD_DB
from mlc_controlnet.runtime.engine import Engine
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.control_lora import save_control_lora
from tests.fixtures.controlnet_models import CONTROL_LORAS as NAMES
from tests.fixtures.controlnet_models import HEIGHT, RANK, UNTOLD, WIDTH
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db
from tests.runtime.test_diffusers import LATENTS, NEGATIVE_PROMPT, PROMPT, SCALE, STEPS, random_picture

pytestmark = pytest.mark.integration

TUNING_DB = ROOT / "tuning_db"

Model = tuple[Path, dict[str, ControlNetModel]]


@pytest.fixture(scope="module")
def model(control_loras: Path) -> Model:
    """The folder, and what the Control-LoRAs beside it make of its UNet, in torch float32."""
    made = {name: ControlNetModel.from_pretrained(control_loras / name, torch_dtype=torch.float32) for name in NAMES}
    return control_loras / "model", made


@pytest.fixture(scope="module")
def bundle(control_loras: Path) -> Bundle:
    return read_bundle(control_loras / "bundle")


def draw(bundle: Bundle, names: tuple[str, ...], reduced_memory: bool = False, as_depth: bool = False) -> np.ndarray:
    """`as_depth`: with the picture that depth sees."""
    pipeline = ControlNetPipeline.from_bundle(bundle, reduced_memory=reduced_memory)
    pictures = [random_picture(2 if as_depth else 1 + NAMES.index(name)) for name in names]
    drawn = pipeline(
        PROMPT,
        pictures,
        controlnets=list(names),
        latents=LATENTS,
        negative_prompt=NEGATIVE_PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        controlnet_conditioning_scale=SCALE,
    )
    pipeline.unload()
    return np.asarray(drawn.images[0])


def draw_with_diffusers(model: Model, names: tuple[str, ...]) -> np.ndarray:
    folder, controlnets = model
    reference = StableDiffusionControlNetPipeline.from_pretrained(
        folder, controlnet=MultiControlNetModel([controlnets[name] for name in names]), torch_dtype=torch.float32
    )
    reference.set_progress_bar_config(disable=True)
    drawn = reference(
        PROMPT,
        image=[random_picture(1 + NAMES.index(name)) for name in names],
        latents=torch.from_numpy(LATENTS),
        negative_prompt=NEGATIVE_PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        controlnet_conditioning_scale=[SCALE] * len(names),
    )
    return np.asarray(drawn.images[0])


@pytest.mark.parametrize("names", [("canny",), ("depth",), ("depth", "canny")], ids=", ".join)
def test_a_bundle_of_factors_draws_diffusers_picture(model: Model, bundle: Bundle, names: tuple[str, ...]) -> None:
    wanted = draw_with_diffusers(model, names)
    drawn = draw(bundle, names)
    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB
    assert np.array_equal(draw(bundle, names, reduced_memory=True), drawn)


def test_an_added_control_lora_shares_the_bundles_unet_if_the_library_can_make_its_weights(
    model: Model, bundle: Bundle, tmp_path: Path
) -> None:
    """Of the rank of the bundle's own it adds factors; of another one, merged weights. Both draw diffusers' picture."""
    folder, _ = model
    other = save_control_lora(tmp_path / "other.safetensors", folder, RANK + 1, seed=1, untold=[UNTOLD])
    options = [
        ControlNetOption(str(folder.parent / "depth.safetensors"), "again"),
        ControlNetOption(str(tmp_path / "other.safetensors"), "other"),
    ]
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    with pytest.raises(UserError, match=r"got a Control-LoRA, .*; pass its base in --model"):
        add_controlnets(copy, options, TUNING_DB)
    added = add_controlnets(copy, options, TUNING_DB, str(folder))
    params = added.manifest.params
    merged = {name: merged_of(added, name) for name in ("controlnet_2", "controlnet_3", "controlnet_4")}
    assert [(m.function, m.shape) for m in merged["controlnet_3"]] == [
        (m.function, m.shape) for m in merged["controlnet_2"]
    ]
    assert merged["controlnet_4"] == []
    assert f"unet.{UNTOLD}" in added.manifest.components["controlnet_4"].params
    assert params.records[: len(bundle.manifest.params.records)] == bundle.manifest.params.records
    assert min(min(added.manifest.parity_db[name].values()) for name in merged) >= THRESHOLD_DB["float32"]
    assert np.array_equal(draw(added, ("again",), as_depth=True), draw(added, ("depth",)))
    drawn, wanted = draw(added, ("other",), as_depth=True), draw_with_diffusers((folder, {"depth": other}), ("depth",))
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB


def merged_of(bundle: Bundle, component: str) -> list[MergedParam]:
    return [merged for merged in bundle.manifest.params.merged if merged.name.startswith(f"{component}.")]


def test_a_plain_controlnet_can_be_added_too(model: Model, bundle: Bundle, tmp_path: Path) -> None:
    _, controlnets = model
    controlnets["depth"].half().save_pretrained(tmp_path / "plain")
    controlnets["depth"].float()
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    added = add_controlnets(copy, [ControlNetOption(str(tmp_path / "plain"), "plain")], TUNING_DB)
    assert added.manifest.params.merged == bundle.manifest.params.merged
    assert psnr_db(draw(added, ("plain",), as_depth=True), draw(added, ("depth",))) >= MIN_PSNR_DB


def test_a_control_lora_is_not_shared_with_a_unet_that_a_lora_changed(
    model: Model, bundle: Bundle, tmp_path: Path
) -> None:
    """The base of the Control-LoRA is the model as it was: its weights are merged with that one."""
    folder, _ = model
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    unet = UNet2DConditionModel.from_pretrained(changed / "unet", torch_dtype=torch.float16)
    unet.mid_block.resnets[0].conv1.weight.data *= 1.5
    unet.save_pretrained(changed / "unet")
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    options = [ControlNetOption(str(folder.parent / "depth.safetensors"), "again")]
    added = add_controlnets(copy, options, TUNING_DB, str(changed))
    names = {merged.name.removeprefix("controlnet_2.") for merged in merged_of(added, "controlnet_2")}
    again = {merged.name.removeprefix("controlnet_3.") for merged in merged_of(added, "controlnet_3")}
    assert names - again == {"mid_block.resnets.0.conv1.weight"}


def test_one_control_lora_is_not_the_other(model: Model, bundle: Bundle) -> None:
    folder, controlnets = model
    same = dict.fromkeys(NAMES, controlnets["canny"])
    assert psnr_db(draw(bundle, ("depth",)), draw_with_diffusers((folder, same), ("depth",))) < MIN_PSNR_DB


def test_the_device_makes_what_a_build_would_merge(model: Model, bundle: Bundle) -> None:
    """Equal but for the order of a float32 sum, which now and then rounds to the next float16."""
    folder, _ = model
    files = {name: folder.parent / f"{name}.safetensors" for name in NAMES}
    checkpoint = load_checkpoint(folder, HEIGHT, WIDTH, controlnets=files)
    merged_by_build = {part: dict(checkpoint.parts[part].named_parameters()) for part in ("controlnet", "controlnet_2")}
    with Engine.load(bundle) as engine:
        assert engine.weights is not None
        for component in ("controlnet", "controlnet_2"):
            made = dict(zip(bundle.manifest.components[component].params, engine.weights.take(component), strict=True))
            merged = [param for param in bundle.manifest.params.merged if param.name.startswith(f"{component}.")]
            whole = [param for param in merged if not param.name.endswith("more") and len(param.shape) == 4]
            assert len(whole) > 10  # convolutions, whose outputs come last
            for param in whole:
                wanted = (
                    merged_by_build[component][param.name.removeprefix(f"{component}.")].float().permute(1, 2, 3, 0)
                )
                got = made[param.name].numpy()
                assert np.mean(got != wanted.numpy()) < 2e-3
                assert np.allclose(got, wanted.numpy(), rtol=2**-10, atol=1e-7)


def test_a_control_lora_costs_its_factors(bundle: Bundle) -> None:
    params = bundle.manifest.params
    sizes = {record.name: record.bytes for record in params.records}
    by_shard: dict[int, set[str]] = {}
    for record in params.records:
        by_shard.setdefault(record.shard, set()).add(record.name.split(".")[0])
    merged = merged_of(bundle, "controlnet_2")
    own = sum(size for name, size in sizes.items() if name.startswith("controlnet_2.") and "cond_embedding" not in name)
    whole = (
        own
        + sum(2 * int(np.prod(param.shape)) for param in merged)
        - sum(sizes[source] for param in merged for source in param.sources if source.startswith("controlnet_2."))
    )
    assert own < 0.15 * whole
    assert {"controlnet_2"} in by_shard.values()  # a page fetches them for a picture that uses depth
    assert f"unet.{UNTOLD}" in bundle.manifest.components["controlnet_2"].params
    assert {param.function for param in merged} == {
        param.function for param in params.merged if param.name.startswith("controlnet.")
    }
    assert min(bundle.manifest.parity_db["controlnet_2"].values()) >= THRESHOLD_DB["float32"]


@pytest.mark.parametrize("reduced_memory", [False, True])
def test_weights_are_made_once_and_factors_do_not_stay(bundle: Bundle, reduced_memory: bool) -> None:
    params = bundle.manifest.params
    merged = {param.name for param in params.merged}
    factors = {source for param in params.merged for source in param.sources if not source.startswith("unet.")}
    calls: list[str] = []
    with Engine.load(bundle, reduced_memory=reduced_memory) as engine:
        assert engine.weights is not None
        function = engine.weights._function

        def counted(name: str) -> object:
            calls.append(name)
            return function(name)

        engine.weights._function = counted
        for component in ("controlnet", "unet", "controlnet_2", "unet", "controlnet", "controlnet_2", "unet"):
            engine.weights.take(component)
            there = engine.weights.on_device
            assert {name for name in merged if name.startswith(f"{component}.")} <= there
            assert not factors & there
        assert len(calls) == len(merged)
