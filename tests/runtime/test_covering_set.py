"""Every feature of a drawing with every other one, against diffusers' pipelines, on models of random weights.

The cases cover all pairs of the factors' values. A dozen more are drawn at random in each run.
"""

import secrets

import numpy as np
import pytest

from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.fixtures.diffusers_pictures import DiffusersPictures
from tests.fixtures.drawings import FACTORS, arguments_of, build_model, channels_of, drawing_of
from tests.fixtures.pairwise import Case, covering_set, random_cases
from tests.fixtures.shared_build import BuildOnce
from tests.runtime.test_circles import MIN_PSNR_DB, psnr_db

pytestmark = pytest.mark.integration

RUN_SEED = secrets.randbelow(10**6)
CASES = [*covering_set(FACTORS), *random_cases(FACTORS, 12, RUN_SEED)]
Contest = tuple[ControlNetPipeline, DiffusersPictures]


def contest(build_once: BuildOnce, channels: int) -> Contest:
    folder = build_once(f"random-{channels}-channels", lambda partial: build_model(partial, channels))
    model = folder / "model"
    pictures = DiffusersPictures(model, sorted(model.glob("controlnet*")))
    return ControlNetPipeline.from_bundle(read_bundle(folder / "bundle")), pictures


@pytest.fixture(scope="module")
def four_channels(build_once: BuildOnce) -> Contest:
    return contest(build_once, 4)


@pytest.fixture(scope="module")
def nine_channels(build_once: BuildOnce) -> Contest:
    return contest(build_once, 9)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_a_picture_is_diffusers_own(
    index: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    case: Case = CASES[index]
    pipeline, diffusers = request.getfixturevalue("nine_channels" if channels_of(case) == 9 else "four_channels")
    drawing = drawing_of(case, seed=100 + index)
    wanted = diffusers.draw(drawing, monkeypatch)
    drawn = np.asarray(pipeline(**arguments_of(drawing, pipeline.engine.bundle)).images[0])
    assert wanted.std() > 10  # not a flat picture
    assert psnr_db(drawn, wanted) >= MIN_PSNR_DB, f"{case}, random cases of seed {RUN_SEED}"


PLAIN_CASE: Case = {
    "sampler": "ddim", "guidance_scale": 1.0, "controlnets": 1, "mode": "balanced", "window": (0.0, 1.0),
    "task": "txt2img", "weights": False,
}  # fmt: skip


@pytest.mark.parametrize("factor", FACTORS)
def test_every_value_of_a_factor_changes_the_picture(factor: str, four_channels: Contest) -> None:
    """Otherwise the comparisons above would say nothing about it."""
    pipeline, _ = four_channels
    # Some modes differ in the half without a prompt only.
    base = {**PLAIN_CASE, "guidance_scale": 5.0} if factor == "mode" else PLAIN_CASE
    # With the model's own timesteps, Euler's steps are DDIM's and its ancestral ones DDPM's; nine channels are another
    # model's.
    values = [value for value in FACTORS[factor] if value not in ("euler", "euler_a", "inpaint 9")]
    cases = [{**base, factor: value} for value in values]
    calls = [arguments_of(drawing_of(case, seed=100), pipeline.engine.bundle) for case in cases]
    drawn = [np.asarray(pipeline(**call).images[0]) for call in calls]
    for i, picture in enumerate(drawn):
        for j in range(i):
            assert psnr_db(picture, drawn[j]) < MIN_PSNR_DB, (values[i], values[j])
