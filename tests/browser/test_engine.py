"""The engine as a library: another site's script uses what `npm run build:engine` writes, without a bundler."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlc_controlnet.bundle.file_names import MANIFEST_NAME
from mlc_controlnet.bundle.reader import Bundle, read_bundle
from mlc_controlnet.runtime.pipeline import ControlNetPipeline
from tests.browser.conftest import WEB, Visit
from tests.fixtures.linear_bundle import HEIGHT, WIDTH
from tests.fixtures.variant_bundle import TURNED

SITE_TS = """
import { createEngine, type Progress, UserError } from "mlc-controlnet";
import * as here from "mlc-controlnet/engine";

const onProgress = ({ done, total }: Progress) => console.log(done / total);
const engine: here.ControlNetEngine = await createEngine({ bundleUrl: "./bundle/", onProgress });
const controlImage = new ImageData(8, 8) as here.Image;
const { data } = await engine.generate({ prompt: "gold", controlImage }, { onStep: (step) => step.preview() });
export const bytes: number = data.length;
export const isOurs = (error: unknown): error is UserError => error instanceof here.UserError;
// @ts-expect-error: a type that is not found would be any, and take every argument
await engine.generate({ prompt: 7 });
"""


def test_another_site_makes_a_picture_with_the_built_engine(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle
):
    facts = visit("useTheEngine", linear_webgpu_bundle, site=engine_site, width=WIDTH, height=HEIGHT, seed=0)
    assert set(facts["phases"]) == {"download", "compile"}
    assert facts["steps"] == [[i, WIDTH // 8] for i in range(4)]
    assert facts["size"] == [WIDTH, HEIGHT, 4 * WIDTH * HEIGHT]
    assert facts["settings"]["seed"] == 0
    assert facts["pngBytes"] > 100
    assert facts["refused"] == "Error: the engine was unloaded"


@pytest.mark.parametrize("policy", ["", "worker-src 'self'"])
def test_the_engine_of_another_host_works_or_says_what_it_needs(
    visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle, tmp_path: Path, policy: str
):
    (tmp_path / "index.html").write_text(f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    places = {"engine": str(engine_site), "engineBundle": str(linear_webgpu_bundle.path)}
    facts = visit("useAForeignEngine", linear_webgpu_bundle, site=tmp_path, **places)
    if policy:
        assert facts["error"].startswith("UserError: the engine's script: got no answer from http://")
        assert "worker-src blob:" in facts["error"]
    else:
        assert facts["size"] == [WIDTH, HEIGHT]


@pytest.mark.parametrize("resolution", ["bundler", "node16", "nodenext"])
def test_another_site_in_typescript_finds_every_type(engine_site: Path, tmp_path: Path, resolution: str):
    options = {"module": "esnext" if resolution == "bundler" else resolution, "moduleResolution": resolution}
    checks = {"strict": True, "skipLibCheck": False, "noEmit": True, "types": []}
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": {"target": "es2022", **options, **checks}}))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "site.ts").write_text(SITE_TS)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "mlc-controlnet").symlink_to(engine_site / "engine")
    tsc = [str(WEB / "node_modules" / ".bin" / "tsc"), "--project", str(tmp_path)]
    checked = subprocess.run(tsc, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def random_picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def numbers(picture: Image.Image) -> dict[str, Any]:
    """As the scenario takes a picture."""
    return {"width": picture.width, "data": np.asarray(picture.convert("RGBA")).flatten().tolist()}


def that_pools_its_residuals(bundle: Bundle, folder: Path) -> Bundle:
    """A copy whose manifest says so."""
    pooling = tuple(dataclasses.replace(entry, global_pool_conditions=True) for entry in bundle.manifest.controlnets)
    shutil.copytree(bundle.path, folder)
    (folder / MANIFEST_NAME).write_bytes(dataclasses.replace(bundle.manifest, controlnets=pooling).to_bytes())
    return read_bundle(folder)


@pytest.mark.parametrize("pools", [False, True])
def test_the_engine_draws_what_the_native_library_draws(
    visit: Visit, engine_site: Path, linear_bundle: Bundle, linear_webgpu_bundle: Bundle, tmp_path: Path, pools: bool
):
    native, web = linear_bundle, linear_webgpu_bundle
    if pools:
        native = that_pools_its_residuals(native, tmp_path / "native")
        web = that_pools_its_residuals(web, tmp_path / "web")
    drawn = ControlNetPipeline.from_bundle(native)("gold", random_picture(2), negative_prompt="navy", seed=5).images[0]
    assert_draws(drawn, visit, web, engine_site, controlImage=random_picture(2))


def test_the_engine_repaints_as_the_native_library_does(
    visit: Visit, engine_site: Path, linear_inpainting_bundle: Bundle, linear_inpainting_webgpu_bundle: Bundle
):
    """The mask is in colours, and cut by its brightness."""
    picture, mask, control = random_picture(3), random_picture(4), random_picture(2)
    pipeline = ControlNetPipeline.from_bundle(linear_inpainting_bundle)
    drawn = pipeline("gold", picture, negative_prompt="navy", seed=5, mask_image=mask, control_image=control).images[0]
    pictures = {"controlImage": control, "image": picture, "maskImage": mask}
    assert_draws(drawn, visit, linear_inpainting_webgpu_bundle, engine_site, **pictures)


CONTROLS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "scales": {"controlnet_conditioning_scale": [0.5, 2]},
    "windows": {"control_guidance_start": [0, 0.5], "control_guidance_end": [0.5, 1]},
    "prompt": {"control_mode": "prompt"},
    "control": {"control_mode": ["balanced", "control"]},
    "guess": {"guess_mode": True},
    "guided": {"guidance_scale": 6},
    "rescaled": {"guidance_scale": 6, "guidance_rescale": 0.7},
    "one": {"controlnets": ["depth"]},
    "none": {"controlnets": []},
    "turned": {"controlnets": ["depth", "lines"]},
}


def test_the_engine_draws_with_two_controlnets_as_the_native_library_does(
    visit: Visit, engine_site: Path, linear_bundle_of_two: Bundle, linear_webgpu_bundle_of_two: Bundle
):
    """In every control mode; all in one engine, so that no picture may leave something for the next."""
    pipeline = ControlNetPipeline.from_bundle(linear_bundle_of_two)
    pictures = [random_picture(2), random_picture(3)]
    drawn, requests = [], []
    for options in CONTROLS.values():
        given = pictures[: len(options.get("controlnets", pictures))]
        drawn.append(pipeline("gold", given, negative_prompt="navy", seed=5, **options).images[0])
        requests.append({"controlImage": [numbers(picture) for picture in given], **camel_case(options)})
    for name, wanted, pixels in zip(
        CONTROLS, drawn, draw_all(visit, linear_webgpu_bundle_of_two, engine_site, requests), strict=True
    ):
        assert_alike(pixels, wanted, name)
    assert len({picture.tobytes() for picture in drawn}) == len(CONTROLS)


VARIANTS: dict[str, dict[str, Any]] = {
    "first size": {},
    "other size": {"height": TURNED[0], "width": TURNED[1]},
    "long prompt": {"prompt": "gold BREAK a teal disc", "height": TURNED[0], "width": TURNED[1]},
    "back to the first size": {"controlnet_conditioning_scale": 0.0},
    "deepcache": {"deepcache_interval": 3, "num_inference_steps": 7},
    "deepcache of a long prompt": {"deepcache_interval": 2, "prompt": "gold BREAK teal", "num_inference_steps": 7},
    "hires fix": {"hires_scale": 2, "hires_strength": 0.5, "hires_upscaler": "bicubic", "hires_steps": 6},
    "repainted": {"strength": 0.5, "height": TURNED[0], "width": TURNED[1], "image": True},
}


def test_the_engine_draws_every_variant_as_the_native_library_does(
    visit: Visit, engine_site: Path, linear_variant_bundle: Bundle, linear_variant_webgpu_bundle: Bundle
):
    """All in one engine, so that each picture finds what the last one left."""
    pipeline = ControlNetPipeline.from_bundle(linear_variant_bundle)
    drawn, requests = [], []
    for options in VARIANTS.values():
        settings = {name: value for name, value in options.items() if name != "image"}
        pictures = {"control_image": random_picture(2)} | ({"image": random_picture(3)} if "image" in options else {})
        common = {"prompt": "gold", "negative_prompt": "navy", "seed": 5}
        drawn.append(pipeline(**{**common, **settings, **pictures}).images[0])
        requests.append({**camel_case(settings), **camel_case({name: numbers(p) for name, p in pictures.items()})})
    facts = visit("drawWithTheEngine", linear_variant_webgpu_bundle, site=engine_site, requests=_common(requests))
    for name, wanted, pixels in zip(VARIANTS, drawn, facts["pictures"], strict=True):
        assert_alike(np.array(pixels).reshape(*wanted.size[::-1], 4)[..., :3], wanted, name)
    assert len({picture.tobytes() for picture in drawn}) == len(VARIANTS)


def test_a_page_loads_only_those_controlnets_that_it_uses(
    visit: Visit, engine_site: Path, linear_webgpu_bundle_of_two: Bundle
):
    """Of two ControlNets in one bundle, the second one's weights are in a shard of their own."""
    images = [numbers(random_picture(2)), numbers(random_picture(3))]
    facts = visit("loadOnFirstUse", linear_webgpu_bundle_of_two, site=engine_site, images=images)
    shards = {name: [path for path in paths if "params" in path] for name, paths in facts["requests"].items()}
    assert shards == {
        "load": ["bundle/params/00.bin"],
        "the first": [],
        "aborted": [],
        "both": ["bundle/params/01.bin"],
        "both again": [],
    }
    assert facts["error"].startswith("AbortError")
    bytes_of_shard = next(f.bytes for f in linear_webgpu_bundle_of_two.manifest.files if f.path == "params/01.bin")
    assert facts["progress"] == [{"phase": "download", "done": bytes_of_shard, "total": bytes_of_shard}]


def test_the_engine_draws_several_pictures_as_the_native_library_does(
    visit: Visit, engine_site: Path, linear_bundle: Bundle, linear_webgpu_bundle: Bundle
):
    """Two prompts, two pictures each; every picture is told when it is finished."""
    call: dict[str, Any] = {"prompt": ["gold", "navy"], "seed": 5}
    wanted = ControlNetPipeline.from_bundle(linear_bundle)(
        image=random_picture(2), num_images_per_prompt=2, **call
    ).generated
    request = {**call, "numImagesPerPrompt": 2, "controlImage": numbers(random_picture(2))}
    facts = visit("drawSeveral", linear_webgpu_bundle, site=engine_site, request=request)
    made = [(picture.settings.prompt, picture.settings.seed) for picture in wanted]
    assert made == [("gold", 5), ("gold", 6), ("navy", 7), ("navy", 8)]
    assert [(seen["prompt"], seen["seed"]) for seen in facts["finished"]] == made
    for pixels, picture in zip(facts["pictures"], wanted, strict=True):
        assert_alike(np.array(pixels).reshape(HEIGHT, WIDTH, 4)[..., :3], picture.image)


def camel_case(options: dict[str, Any]) -> dict[str, Any]:
    return {re.sub("_(.)", lambda match: match[1].upper(), name): value for name, value in options.items()}


def assert_draws(wanted: Image.Image, visit: Visit, bundle: Bundle, site: Path, **pictures: Image.Image) -> None:
    """Whether the engine makes the `wanted` picture of these."""
    given = {name: numbers(picture) for name, picture in pictures.items()}
    [pixels] = draw_all(visit, bundle, site, [given])
    assert_alike(pixels, wanted)


def draw_all(visit: Visit, bundle: Bundle, site: Path, requests: list[dict[str, Any]]) -> list[np.ndarray]:
    """Draw one picture after another in one engine: [H, W, 3] each."""
    facts = visit("drawWithTheEngine", bundle, site=site, requests=_common(requests))
    return [np.array(pixels).reshape(HEIGHT, WIDTH, 4)[..., :3] for pixels in facts["pictures"]]


def _common(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"prompt": "gold", "negativePrompt": "navy", "seed": 5, **request} for request in requests]


def assert_alike(pixels: np.ndarray, wanted: Image.Image, what: str = "") -> None:
    assert np.abs(pixels - np.asarray(wanted, int)).max() <= 1, what  # a value near .5 may round the other way
    assert np.asarray(wanted).std() > 10  # not a flat picture
