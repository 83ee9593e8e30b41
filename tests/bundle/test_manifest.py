import copy
import dataclasses
import functools
import json
import operator
from pathlib import Path

import pytest

from mlc_controlnet.bundle.manifest import FORMAT_VERSION, Manifest
from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.components import DRAWING, VAE_ENCODER
from mlc_controlnet.errors import UserError

GOLDEN = json.loads((Path(__file__).parents[1] / "fixtures" / "bad_manifests.json").read_text(encoding="utf-8"))


@pytest.fixture
def raw(bundle_path):
    """The parsed manifest of a sound bundle, to be broken."""
    return json.loads((bundle_path / "manifest.json").read_text())


def parse(raw) -> Manifest:
    return Manifest.from_bytes(json.dumps(raw).encode())


def test_a_manifest_survives_the_way_through_its_file(bundle_path):
    manifest = read_bundle(bundle_path).manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_another_format_version_is_refused_before_anything_else_is_read(version):
    with pytest.raises(UserError, match=r"format_version: got .*wanted 3; build the bundle again"):
        parse({"format_version": version, "all else": "unknown"})


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b'{"format_version": 1'])
def test_what_is_no_manifest_is_a_users_error(data):
    with pytest.raises(UserError, match=r"manifest.json"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("case", GOLDEN["bad"], ids=lambda case: case["name"])
def test_a_bad_manifest_is_refused_as_in_the_browser(case):
    """web/tests/engine/manifest.test.ts reads the same file."""
    changed = copy.deepcopy(GOLDEN["sound"])
    *path, key = case["place"]
    place = functools.reduce(operator.getitem, path, changed)
    if "remove" in case:
        del place[key]
    else:
        place[key] = case["value"]
    with pytest.raises(UserError) as refused:
        parse(changed)
    assert (refused.value.subject, refused.value.wanted) == (case["subject"], case["wanted"])


def test_the_manifest_that_the_bad_ones_are_made_from_is_sound():
    assert parse(GOLDEN["sound"]).model.name == "tiny"


def test_a_number_must_be_a_number(raw):
    raw["defaults"]["guidance_scale"] = float("nan")  # JSON of Python alone can say this
    with pytest.raises(UserError, match=r"guidance_scale: got nan, wanted a number"):
        parse(raw)


def drawing_manifest(manifest: Manifest, channels: int) -> Manifest:
    """All components that drawing takes, with a UNet that takes so many channels."""
    unet = manifest.components["unet"]
    sample = dataclasses.replace(unet.inputs[0], shape=(1, channels, 2, 3))
    unet = dataclasses.replace(unet, inputs=(sample, *unet.inputs[1:]))
    return dataclasses.replace(manifest, components=dict.fromkeys(DRAWING, unet))


def test_a_bundle_of_some_components_cannot_draw(manifest):
    with pytest.raises(UserError, match=r"dist/x: got no text_encoder, control_embedding, controlnet, vae_decoder, "):
        manifest.check_can_draw("dist/x")


def inpainting_manifest(manifest: Manifest) -> Manifest:
    drawing = drawing_manifest(manifest, 9)
    components = {**drawing.components, VAE_ENCODER: drawing.components["vae_decoder"]}
    return dataclasses.replace(drawing, components=components)


@pytest.mark.parametrize("channels", [5, 8])
def test_a_unet_of_another_kind_cannot_draw(manifest, channels):
    with pytest.raises(UserError, match=rf"unet: got a sample of \[1, {channels}, 2, 3\], wanted 4 channels, .* 9; "):
        drawing_manifest(manifest, channels).check_can_draw("dist/x")


def test_an_inpainting_bundle_cannot_draw_without_the_encoder(manifest):
    with pytest.raises(UserError, match=r"dist/x: got no vae_encoder, wanted .*vae_decoder, vae_encoder; build"):
        drawing_manifest(manifest, 9).check_can_draw("dist/x")


def test_a_whole_bundle_passes_the_check_that_it_can_draw(manifest):
    """No error is raised."""
    drawing_manifest(manifest, 4).check_can_draw("dist/x")
    inpainting_manifest(manifest).check_can_draw("dist/x")


def test_nine_channels_are_an_inpainting_models(manifest):
    assert inpainting_manifest(manifest).inpaints
    assert not drawing_manifest(manifest, 4).inpaints
    assert not manifest.with_files(()).inpaints


def test_a_figure_that_json_cannot_hold_is_refused_when_written(manifest):
    endless = dataclasses.replace(manifest, parity_db={"unet": {"float32": float("inf")}})
    with pytest.raises(ValueError, match=r"JSON"):
        endless.to_bytes()
