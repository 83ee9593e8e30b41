"""Stable Diffusion XL with control types of a union ControlNet: the compiled library draws diffusers' own pictures."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetUnionModel,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLControlNetUnionPipeline,
)
from diffusers.models.controlnets import MultiControlNetUnionModel

from mlc_controlnet.add_controlnet import add_controlnets
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.config import ControlNetOption
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.conftest import ROOT
from tests.fixtures.controlnet_models import build_xl
from tests.fixtures.drawings import HEIGHT, WIDTH, random_picture
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db
from tests.runtime.test_xl import LATENTS, NEGATIVE, PROMPT

pytestmark = pytest.mark.integration

MODES = {"canny": 3, "depth": 1, "segment": 5}  # diffusers' `control_mode`
OPTIONS: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 5.0, "negative_prompt": NEGATIVE}
SCALES = {"canny": 4.0, "depth": 2.0, "segment": 4.0}


@pytest.fixture(scope="module")
def folder(build_once: BuildOnce) -> Path:
    return build_once("xl", build_xl)


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return read_bundle(folder / "bundle")


def picture_of(name: str) -> Any:
    return random_picture(list(MODES).index(name))


def draw(bundle: Bundle, *names: str, **options: Any) -> np.ndarray:
    pipeline = ControlNetPipeline.from_bundle(bundle)
    scales = [SCALES[name] for name in names]
    chosen = {"controlnets": list(names), "controlnet_conditioning_scale": scales, **OPTIONS, **options}
    output = pipeline(PROMPT, [picture_of(name) for name in names], latents=LATENTS, sampler="euler", **chosen)
    pipeline.unload()
    return np.asarray(output.images[0])


def draw_with_diffusers(folder: Path, *names: str, **options: Any) -> np.ndarray:
    parts = StableDiffusionXLControlNetPipeline.from_pretrained(folder / "model", torch_dtype=torch.float32).components
    nets = [ControlNetUnionModel.from_pretrained(folder / "union", torch_dtype=torch.float32) for _ in names]
    one = len(names) == 1
    parts |= {"controlnet": nets[0] if one else MultiControlNetUnionModel(nets)}
    known = {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}
    pipeline = StableDiffusionXLControlNetUnionPipeline(**known, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    scales = [SCALES[name] for name in names]
    output = pipeline(
        PROMPT,
        control_image=[picture_of(name) for name in names] if one else [[picture_of(name)] for name in names],
        control_mode=[MODES[name] for name in names],
        controlnet_conditioning_scale=scales[0] if one else scales,
        latents=torch.from_numpy(LATENTS),
        height=HEIGHT,
        width=WIDTH,
        **{**OPTIONS, **options},
    )
    return np.asarray(output.images[0])


CASES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("canny",), {}),
    (("depth",), {"control_guidance_start": 0.3, "control_guidance_end": 0.7}),
    (("depth", "canny"), {}),
]


@pytest.mark.parametrize(("names", "options"), CASES, ids=str)
def test_a_picture_is_diffusers_own(
    folder: Path, bundle: Bundle, names: tuple[str, ...], options: dict[str, Any]
) -> None:
    wanted = draw_with_diffusers(folder, *names, **options)
    assert wanted.std() > 10  # not a flat picture
    reached = psnr_db(draw(bundle, *names, **options), wanted)
    assert reached >= MIN_PSNR_DB
    others = {"canny": "depth", "depth": "canny"}
    switched = {"controlnets": [others[name] for name in names]}
    assert psnr_db(draw(bundle, *names, **options, **switched), wanted) < reached - 10


def test_a_further_type_costs_two_vectors_and_no_kernel(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert [(entry.name, entry.kind) for entry in manifest.controlnets] == [
        ("plain", ""),
        ("canny", "canny"),
        ("depth", "depth"),
    ]
    components, sizes = manifest.components, {record.name: record.bytes for record in manifest.params.records}
    for kind, function in (("controlnet", "controlnet"), ("control_embedding", "control_embedding_2")):
        canny, depth = components[f"{kind}_2"], components[f"{kind}_3"]
        assert canny.function == depth.function == function
        (own,) = set(depth.params) - set(canny.params)
        assert own in ("controlnet_3.time_embedding.linear_2.bias", "controlnet_3.control_fuser.task_embedding")
        assert sizes[own] <= 2 * 4 * 32  # as wide as the embedding of the timestep
        assert not set(canny.params) & set(components[kind].params)  # the plain one has its own weights
    assert not any(name.startswith("controlnet_3.") for name in sizes if sizes[name] > 2 * 4 * 32)


def test_a_type_is_added_to_a_bundle_that_has_another(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    option = ControlNetOption(str(folder / "union"), None, "segment")
    added = add_controlnets(copy, [option], ROOT / "tuning_db")
    assert [(entry.name, entry.kind) for entry in added.manifest.controlnets][3:] == [("segment", "seg")]
    assert psnr_db(draw(added, "segment"), draw_with_diffusers(folder, "segment")) >= MIN_PSNR_DB
