"""Models from elsewhere and odd inputs: what the page says, and that it goes on working."""

import base64
import dataclasses
import io
import math
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.site.models_file import describe_model, models_text
from tests.browser.conftest import Visit


@pytest.fixture(scope="module")
def odd(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    """The PNG file has the texts of ComfyUI, and of a web UI's broken one."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", '{"nodes": []}')
    texts.add_text("prompt", '{"3": {"class_type": "KSampler"}}')
    content = io.BytesIO()
    Image.new("RGB", (48, 32), (200, 40, 40)).save(content, "PNG", pnginfo=texts)
    data = base64.b64encode(content.getvalue()).decode()
    foreign = {"name": "foreign.png", "mimeType": "image/png", "base64": data}
    return visit("drawWithWhatIsOdd", linear_webgpu_bundle, foreign=foreign)


def test_where_the_first_address_has_nothing_a_mirror_is_asked(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("loadFromAMirror", linear_webgpu_bundle)
    assert facts["end"][0].startswith("Ready") and facts["end"][1].startswith("Done")
    assert facts["asked"] == ["gone/manifest.json", "bundle/manifest.json"]
    assert not [message for message in facts["messages"] if "gone" in message]


def test_a_dropped_folder_is_a_model_also_at_the_next_visit(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("dropAFolder", linear_webgpu_bundle, folder=str(linear_webgpu_bundle.path))
    assert facts["list"][1] == "linear"
    assert facts["end"].startswith("Done")
    assert "on this machine" in facts["kept"] and "Open now" in facts["kept"]
    assert facts["complaints"] == []


def test_of_an_open_model_no_library_beside_its_own_is_still_to_be_fetched(visit: Visit, linear_webgpu_bundle: Bundle):
    manifest = linear_webgpu_bundle.manifest
    listed = describe_model(manifest, "bundle/")
    larger = dataclasses.replace(listed, bytes=listed.bytes + 9_000_000)
    options = {"models": models_text([larger]), "libraryBytes": 9_000_000}
    facts = visit("readTheListOfModels", linear_webgpu_bundle, **options)
    shards = [entry for entry in manifest.files if entry.path in manifest.params.shards]
    later = sum(shard.bytes for shard in shards if f"bundle/{shard.path}" not in facts["requests"])
    assert later > 0  # the VAE's encoder waits for a photo
    assert f"· {math.ceil(later / 1e6)} MB to download" in facts["text"]
    assert facts["complaints"] == []


def test_a_bundle_of_a_newer_format_is_told_in_both_languages(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("meetANewerFormat", linear_webgpu_bundle)
    (message,) = facts["english"]
    assert "format_version" in message and "got 999" in message
    (message,) = facts["german"]
    assert "Unter dieser Adresse liegt kein Modell, das diese Seite lesen kann." in message
    assert "got 999" in message  # the engine's own words, below
    assert facts["end"].startswith("Done")


def test_a_mask_without_a_hole_is_told_and_the_picture_is_drawn(odd: dict[str, Any]):
    assert odd["withoutAHole"]["end"].startswith("Done")
    assert "Nothing is brushed over: nothing will be repainted." in odd["withoutAHole"]["messages"]


def test_a_png_file_of_another_program_is_a_picture_like_any_other(odd: dict[str, Any]):
    assert not [message for message in odd["foreign"] if "restored" in message or "failed" in message]
    assert odd["end"].startswith("Done")


def test_where_the_storage_is_full_the_page_says_so_and_draws(odd: dict[str, Any]):
    assert odd["gallery"].startswith("The browser's storage is full")
    assert odd["complaints"] == []


def test_a_new_version_is_offered_and_is_never_mixed_with_this_one(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("meetANewVersion", linear_webgpu_bundle)
    before, meanwhile, after = facts["before"], facts["meanwhile"], facts["after"]
    assert before["offered"] == 0
    assert meanwhile["end"].startswith("Done")
    assert (meanwhile["scripts"], meanwhile["description"]) == (before["scripts"], before["description"])
    assert after["end"].startswith("Done")
    assert after["scripts"] == ["index-second.js"] and after["offered"] == 0
    assert facts["complaints"] == []
