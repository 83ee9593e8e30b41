import dataclasses
import json

import pytest

from mlc_controlnet.bundle.manifest import FORMAT_VERSION, Manifest, is_inside
from mlc_controlnet.bundle.reader import read_bundle
from mlc_controlnet.components import DRAWING, VAE_ENCODER
from mlc_controlnet.errors import UserError


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
    with pytest.raises(UserError, match=r"format_version: got .*wanted 2; build the bundle again"):
        parse({"format_version": version, "all else": "unknown"})


@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b'{"format_version": 1'])
def test_what_is_no_manifest_is_a_users_error(data):
    with pytest.raises(UserError, match=r"manifest.json"):
        Manifest.from_bytes(data)


def test_a_missing_key_is_named(raw):
    del raw["model"]["width"]
    with pytest.raises(UserError, match=r"manifest.json.model: got no width"):
        parse(raw)


def test_a_bundle_from_before_residuals_were_pooled_pools_none(raw):
    del raw["model"]["global_pool_conditions"]
    assert parse(raw).model.global_pool_conditions is False


def test_an_unknown_key_is_named(raw):
    raw["params"]["colour"] = 1
    with pytest.raises(UserError, match=r"manifest.json.params: got unknown colour"):
        parse(raw)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "height"), "16", "model.height: got '16', wanted an integer"),
        (("model", "height"), True, "model.height: got True, wanted an integer"),
        (("model", "name"), 3, "model.name: got 3, wanted a string"),
        (("model", "global_pool_conditions"), 1, "global_pool_conditions: got 1, wanted true or false"),
        (("defaults", "guidance_scale"), None, "guidance_scale: got None, wanted a number"),
        (("defaults", "guidance_scale"), float("nan"), "guidance_scale: got nan, wanted a number"),
        (("params", "shards"), "params/00.bin", "params.shards: got 'params/00.bin', wanted a list"),
        (("components", "unet", "inputs", 0, "shape", 2), 2.5, r"inputs\[0\].shape\[2\]: got 2.5, wanted an integer"),
        (("parity_db",), [], r"parity_db: got \[\], wanted an object"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_place(raw, path, value, message):
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UserError, match=message):
        parse(raw)


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../b", "..", "", ".", "a//b", "c:\\x", "a\\b", "./a"]
)
def test_a_file_name_that_could_leave_the_bundle_is_refused(raw, path):
    assert not is_inside(path)
    raw["files"][0]["path"] = path
    with pytest.raises(UserError, match=r"files: got .*a relative path inside the bundle"):
        parse(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": 1}, "unet.bias: got shard 1, wanted one of 1 shards"),
        ({"byte_offset": 4}, "unet.bias: got byte_offset 4, wanted 6 or more"),
        ({"byte_offset": 6}, "unet.bias: got byte_offset 6, wanted a multiple of 4"),
        ({"byte_offset": 12}, "unet.bias: got an end at byte 16, wanted 12 at most"),
        ({"bytes": 6}, "unet.bias: got 6 bytes, wanted 4 bytes for float16"),
        ({"dtype": "float64"}, "unet.bias: got float64"),
        ({"shape": [-2]}, "unet.bias: got float16"),
        ({"name": "unet.weight"}, "unet.weight: got two records"),
    ],
)
def test_a_param_record_that_does_not_fit_its_shard_is_named(raw, changes, message):
    raw["params"]["records"][1].update(changes)
    with pytest.raises(UserError, match=message):
        parse(raw)


def test_the_bytes_of_all_params_are_those_of_their_records(raw):
    raw["params"]["bytes"] += 4
    with pytest.raises(UserError, match=r"params.bytes: got 14, wanted 10, that of all records"):
        parse(raw)


def test_a_component_may_only_use_recorded_params(raw):
    raw["components"]["unet"]["params"].append("unet.lost")
    with pytest.raises(UserError, match=r"components.unet.params: got unet.lost, which has no record"):
        parse(raw)


@pytest.mark.parametrize("name", ["tiny-float32.so", "params/00.bin", "tokenizer/tokenizer.json", "samplers.json"])
def test_every_file_that_is_used_must_be_listed(raw, name):
    raw["files"] = [entry for entry in raw["files"] if entry["path"] != name]
    with pytest.raises(UserError, match=r"which files does not list|0 at most, the shard's size"):
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


def inpainting_manifest(manifest: Manifest, scaling_factor: float) -> Manifest:
    drawing = drawing_manifest(manifest, 9)
    components = {**drawing.components, VAE_ENCODER: drawing.components["vae_decoder"]}
    model = dataclasses.replace(drawing.model, scaling_factor=scaling_factor)
    return dataclasses.replace(drawing, components=components, model=model)


@pytest.mark.parametrize("channels", [5, 8])
def test_a_unet_of_another_kind_cannot_draw(manifest, channels):
    with pytest.raises(UserError, match=rf"unet: got a sample of \[1, {channels}, 2, 3\], wanted 4 channels, .* 9; "):
        drawing_manifest(manifest, channels).check_can_draw("dist/x")


def test_an_inpainting_bundle_cannot_draw_without_the_encoder(manifest):
    with pytest.raises(UserError, match=r"dist/x: got no vae_encoder, wanted .*vae_decoder, vae_encoder; build"):
        drawing_manifest(manifest, 9).check_can_draw("dist/x")


def test_an_inpainting_bundle_from_before_the_scaling_factor_was_written_cannot_draw(raw, manifest):
    del raw["model"]["scaling_factor"]
    factor = parse(raw).model.scaling_factor
    with pytest.raises(UserError, match=r"dist/x: scaling_factor: got 0.0, wanted the VAE's.*build the bundle again"):
        inpainting_manifest(manifest, factor).check_can_draw("dist/x")


def test_a_whole_bundle_can_draw(manifest):
    drawing_manifest(manifest, 4).check_can_draw("dist/x")
    inpainting_manifest(manifest, 0.18215).check_can_draw("dist/x")


def test_nine_channels_are_an_inpainting_models(manifest):
    assert inpainting_manifest(manifest, 0.18215).inpaints
    assert not drawing_manifest(manifest, 4).inpaints
    assert not manifest.with_files(()).inpaints


def test_a_figure_that_json_cannot_hold_is_refused_when_written(manifest):
    endless = dataclasses.replace(manifest, parity_db={"unet": {"float32": float("inf")}})
    with pytest.raises(ValueError, match=r"JSON"):
        endless.to_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda memory: memory.clear(), "memory: got none for tiny-float32.so, wanted a plan for each library"),
        (
            lambda memory: memory["tiny-float32.so"]["reduced"]["kept_params"].update(unet=3),
            "memory: tiny-float32.so: got 3 params kept of unet, wanted 0 to 2",
        ),
        (
            lambda memory: memory["tiny-float32.so"]["resident"]["kept_params"].clear(),
            "got -1 params kept of unet, wanted 0 to 2",
        ),
    ],
)
def test_a_memory_plan_that_does_not_fit_the_bundle_is_refused(raw, change, message):
    change(raw["memory"])
    with pytest.raises(UserError, match=message):
        parse(raw)
