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
