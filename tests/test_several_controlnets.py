"""Bundles of several ControlNets, built whole and added to: their pictures are diffusers' own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, MultiControlNetModel, StableDiffusionControlNetPipeline

from mlc_controlnet.add_controlnet import add_controlnets
from mlc_controlnet.bundle.reader import Bundle, read_bundle, verify_bundle
from mlc_controlnet.config import ControlNetOption
from mlc_controlnet.errors import UserError
from mlc_controlnet.parity.parity import THRESHOLD_DB
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.controlnet_models import SEVERAL as FOLDERS
from tests.fixtures.controlnet_models import config_with
from tests.fixtures.quick_build import build_quickly
from tests.fixtures.random_model import random_controlnet
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db
from tests.runtime.test_diffusers import LATENTS, NEGATIVE_PROMPT, PROMPT, STEPS, random_picture

pytestmark = pytest.mark.integration

TUNING_DB = ROOT / "tuning_db"


@pytest.fixture(scope="module")
def model(several_controlnets: Path) -> Path:
    return several_controlnets / "model"


@pytest.fixture(scope="module")
def several(several_controlnets: Path) -> Bundle:
    return read_bundle(several_controlnets / "bundle")


@pytest.fixture(scope="module")
def one(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("one") / "bundle"
    return build_quickly(config_with(model, out, {"first": model / FOLDERS["first"]}))


@pytest.fixture
def copy_of_one(one: Bundle, tmp_path: Path) -> Path:
    return shutil.copytree(one.path, tmp_path / "bundle")


def draw(bundle: Bundle, *names: str, **options: object) -> np.ndarray:
    """Each ControlNet sees the picture of its number in FOLDERS."""
    pictures = [random_picture(1 + list(FOLDERS).index(name)) for name in names]
    pipeline = ControlNetPipeline.from_bundle(bundle)
    output = pipeline(
        PROMPT,
        pictures,
        controlnets=list(names),
        latents=LATENTS,
        negative_prompt=NEGATIVE_PROMPT,
        num_inference_steps=STEPS,
        **options,
    )
    pipeline.unload()
    return np.asarray(output.images[0])


def draw_with_diffusers(model: Path, *names: str, **options: object) -> np.ndarray:
    nets = [ControlNetModel.from_pretrained(model / FOLDERS[name], torch_dtype=torch.float32) for name in names]
    reference = StableDiffusionControlNetPipeline.from_pretrained(
        model, controlnet=MultiControlNetModel(nets), torch_dtype=torch.float32
    )
    reference.set_progress_bar_config(disable=True)
    output = reference(
        PROMPT,
        image=[random_picture(1 + list(FOLDERS).index(name)) for name in names],
        latents=torch.from_numpy(LATENTS),
        negative_prompt=NEGATIVE_PROMPT,
        num_inference_steps=STEPS,
        **options,
    )
    return np.asarray(output.images[0])


SCALES = {"controlnet_conditioning_scale": [0.7, 1.3]}
WINDOWS = {"control_guidance_start": [0.0, 0.25], "control_guidance_end": [0.5, 1.0]}
# diffusers lets its first ControlNet decide whether all of them affect the prompt's context only. So what pools and
# what does not is compared without guidance, where there is no other context.
CASES = [
    (("first", "second"), {**SCALES, "guidance_scale": 3.0}),
    (("second", "first"), {**SCALES, "guidance_scale": 3.0, **WINDOWS}),
    (("first", "second"), {**SCALES, "guidance_scale": 3.0, "guess_mode": True}),
    (("first", "second"), {**SCALES, "guidance_scale": 1.0, "guess_mode": True}),
    (("pooled", "pooled_2"), {**SCALES, "guidance_scale": 3.0}),
    (("second", "pooled"), {**SCALES, "guidance_scale": 1.0}),
    (("first", "second", "pooled"), {"controlnet_conditioning_scale": [0.7, 1.3, 2.0], "guidance_scale": 1.0}),
]


@pytest.mark.parametrize(("names", "options"), CASES, ids=lambda case: str(case)[:70])
def test_several_controlnets_draw_diffusers_picture(
    model: Path, several: Bundle, names: tuple[str, ...], options: dict[str, object]
) -> None:
    wanted = draw_with_diffusers(model, *names, **options)
    reached = psnr_db(draw(several, *names, **options), wanted)
    assert reached >= MIN_PSNR_DB
    assert wanted.std() > 10  # not a flat picture
    for scale in (0.0, 1.0):
        changed = draw(several, *names, **{**options, "controlnet_conditioning_scale": scale})
        assert psnr_db(changed, wanted) < reached - 10


def test_a_scale_of_zero_is_no_controlnet(several: Bundle) -> None:
    without = draw(several, guidance_scale=3.0)
    zero = draw(several, "first", "second", guidance_scale=3.0, controlnet_conditioning_scale=0.0)
    assert np.array_equal(zero, without)
    assert psnr_db(draw(several, "first", "second", guidance_scale=3.0), without) < MIN_PSNR_DB


def test_a_bundle_of_several_costs_weights_and_no_kernels(one: Bundle, several: Bundle) -> None:
    (library,), (larger,) = one.manifest.libraries, several.manifest.libraries
    assert set(larger.launches) - set(library.launches) == {"controlnet_3"}  # the graph that pools
    assert {name: larger.launches[name] for name in library.launches} == dict(library.launches)
    functions = {name: entry.function for name, entry in several.manifest.components.items()}
    assert functions["controlnet_2"] == "controlnet"
    assert functions["controlnet_4"] == "controlnet_3"
    assert {functions[f"control_embedding_{i}"] for i in (2, 3, 4)} == {"control_embedding"}
    assert set(several.manifest.components) <= several.manifest.parity_db.keys()


def test_an_added_controlnet_makes_the_bundle_that_is_built_with_both(
    model: Path, one: Bundle, several: Bundle, copy_of_one: Path
) -> None:
    files = {path: path.stat().st_ino for path in copy_of_one.rglob("*") if path.is_file()}
    second = ControlNetOption(str(model / FOLDERS["second"]), "second")
    added = add_controlnets(copy_of_one, [second], TUNING_DB)
    assert verify_bundle(copy_of_one).sha256 == added.sha256 != one.sha256
    assert {path: path.stat().st_ino for path in files if path.name != "manifest.json"} == {
        path: inode for path, inode in files.items() if path.name != "manifest.json"
    }
    manifest, whole = added.manifest, several.manifest
    assert manifest.controlnets == whole.controlnets[:2]
    assert [manifest.components[name] for name in ("control_embedding_2", "controlnet_2")] == [
        whole.components[name] for name in ("control_embedding_2", "controlnet_2")
    ]
    assert min(manifest.parity_db["controlnet_2"].values()) >= THRESHOLD_DB["float32"]
    params = [name for entry in manifest.components.values() for name in entry.params]
    assert all(np.array_equal(weight(added, name), weight(several, name)) for name in params)
    options = {**SCALES, "guidance_scale": 3.0}
    assert np.array_equal(draw(added, "first", "second", **options), draw(several, "first", "second", **options))


def weight(bundle: Bundle, name: str) -> np.ndarray:
    params = bundle.manifest.params
    record = next(record for record in params.records if record.name == name)
    data = (bundle.path / params.shards[record.shard]).read_bytes()
    return np.frombuffer(data, np.uint8, record.bytes, record.byte_offset)


def test_two_equal_controlnets_at_half_the_scale_are_one(model: Path, copy_of_one: Path) -> None:
    """The same ControlNet again, under another name: it sees the same picture."""
    again = add_controlnets(copy_of_one, [ControlNetOption(str(model / FOLDERS["first"]), "again")], TUNING_DB)
    pipeline = ControlNetPipeline.from_bundle(again)

    def drawn(names: list[str], scale: float) -> np.ndarray:
        pictures = [random_picture(1) for _ in names]
        options = {"controlnets": names, "controlnet_conditioning_scale": scale, "latents": LATENTS}
        return np.asarray(
            pipeline(PROMPT, pictures, num_inference_steps=STEPS, guidance_scale=3.0, **options).images[0]
        )

    whole = drawn(["first"], 1.0)
    assert psnr_db(drawn(["first", "again"], 0.5), whole) >= MIN_PSNR_DB
    assert psnr_db(drawn(["first", "again"], 1.0), whole) < MIN_PSNR_DB


def test_a_site_is_added_to_and_a_name_is_made_unique(model: Path, one: Bundle, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(one.path, site / "bundle")
    shutil.copytree(model / FOLDERS["second"], tmp_path / "control_v11p_sd15_canny")
    options = [ControlNetOption(str(tmp_path / "control_v11p_sd15_canny"))]
    add_controlnets(site, options, TUNING_DB)
    added = add_controlnets(site, options, TUNING_DB)
    assert [(entry.name, entry.kind) for entry in added.manifest.controlnets[1:]] == [
        ("canny", "canny"),
        ("canny_2", "canny"),
    ]
    with pytest.raises(UserError, match="--controlnet: got 2 named first, wanted a name of its own for each"):
        add_controlnets(site, [ControlNetOption(options[0].path, "first")], TUNING_DB)


def test_a_controlnet_without_kernels_in_the_bundle_is_refused(model: Path, copy_of_one: Path, tmp_path: Path) -> None:
    before = read_bundle(copy_of_one).sha256
    with pytest.raises(UserError) as error:
        options = [ControlNetOption(str(model / FOLDERS[name]), name) for name in ("second", "pooled")]
        add_controlnets(copy_of_one, options, TUNING_DB)
    assert str(error.value) == (
        "controlnet pooled: got a graph that the bundle has no kernels for, wanted the graph of one of its "
        "ControlNets: first's; build the model again with all its ControlNets: --controlnet A --controlnet B"
    )
    other = random_controlnet(ControlNetModel.from_pretrained(model / "controlnet"), 1, {"cross_attention_dim": 1024})
    other.save_pretrained(tmp_path / "wide")
    with pytest.raises(UserError, match=r"text width 1024 .Stable Diffusion 2\.x., wanted 64, as the base model has"):
        add_controlnets(copy_of_one, [ControlNetOption(str(tmp_path / "wide"))], TUNING_DB)
    assert verify_bundle(copy_of_one).sha256 == before
