"""What a visitor sees when something is wrong: a message that says what to do, and a page that goes on working."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.browser.png_file import png_file

# Else Chromium gives up WebGPU after some crashes: of the GPU's process, and of this page.
CRASHES = ("--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis")
STEPS = 4  # what the linear bundle's tables have: 1, 4 and 20


def test_a_browser_without_webgpu_is_told_which_have_it(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openInVain", linear_webgpu_bundle, webgpu="none")
    (message,) = facts["messages"]
    assert message.startswith("WebGPU: got ")
    assert "hardware acceleration" in message
    assert facts["messagesAgain"] == facts["messages"]
    assert not [path for path in facts["requests"] if path.endswith((".bin", ".wasm"))]  # nothing large was fetched


def test_over_plain_http_the_page_asks_for_https_before_the_bundle(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openOverPlainHttp", linear_webgpu_bundle, flags=("--host-resolver-rules=MAP lan.test 127.0.0.1",))
    (message,) = facts["messages"]
    assert message.startswith("WebGPU: got a page served over plain http, wanted https or localhost.")
    assert not [path for path in facts["requests"] if path.startswith("bundle/")]


def test_where_no_script_starts_the_page_says_how_to_open_it(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openWhereScriptsDoNotStart", linear_webgpu_bundle)
    for text in (facts["asFile"], facts["inFrame"]):
        assert text.startswith("The page's script did not start. Open the page from a web server")
        assert "allow-same-origin" in text
    assert facts["started"] == 0


def test_a_missing_feature_is_named(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("openInVain", linear_webgpu_bundle, manifestChanges={"required_features": ["shader-f16"]})
    (message,) = facts["messages"]
    assert message.startswith("WebGPU feature shader-f16: got none, wanted it.")
    assert "SwiftShader" in message or "swiftshader" in message  # which GPU it is that lacks it


def test_a_limit_that_is_too_low_is_named_with_value_and_need(visit: Visit, linear_webgpu_bundle: Bundle):
    need = 2**40
    facts = visit("openInVain", linear_webgpu_bundle, manifestChanges={"required_limits": {"maxBufferSize": need}})
    (message,) = facts["messages"]
    assert message.startswith("WebGPU limit maxBufferSize: got ")
    assert f"wanted {need} or more." in message
    assert "cannot run the bundle" in message


def test_an_altered_shard_is_named_with_both_hashes_and_the_page_recovers(visit: Visit, linear_webgpu_bundle: Bundle):
    (shard,) = [entry for entry in linear_webgpu_bundle.manifest.files if entry.path == "params/00.bin"]
    facts = visit("meetAnAlteredShard", linear_webgpu_bundle, steps=STEPS)
    (message,) = facts["messages"]
    assert re.match(r"http://\S+/bundle/params/00.bin: got ", message)  # an address, not a sentence's beginning
    assert "(altered)" in message
    assert f"wanted {shard.bytes} bytes, sha256 {shard.sha256}" in message
    assert "Load the page again" in message
    assert facts["end"].startswith("Done")
    assert facts["messagesAfter"] == []


def test_a_connection_that_is_gone_is_told_and_the_next_picture_tries_again(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("loseTheConnection", linear_webgpu_bundle)
    (message,) = facts["messages"]
    assert message.startswith("The engine's script: got no answer")
    assert "Check the connection" in message
    assert facts["end"].startswith("Done")
    assert facts["messagesAfter"] == []


def test_a_damaged_cache_entry_is_fetched_again(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("meetADamagedCache", linear_webgpu_bundle)
    assert facts["fetchedInTwoVisits"] == 1
    assert facts["fetchedInThree"] == 2
    assert facts["status"] == "Ready"


def test_cancel_in_the_middle_keeps_the_engine(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("cancelInTheMiddle", linear_webgpu_bundle, steps=20)
    assert facts["afterCancel"] == "Cancelled"
    assert facts["messages"] == []
    assert not [status for status in facts["statuses"] if status.startswith("Step 20")]
    assert facts["end"].startswith("Done")


def test_cancel_while_loading_lets_the_model_load_on(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("cancelWhileLoading", linear_webgpu_bundle)
    assert facts["messages"] == []
    assert facts["end"].startswith("Done")


@pytest.mark.parametrize(
    ("wrong", "right", "complaint"),
    [
        ({"Steps": "0"}, {"Steps": "4"}, "Steps: got 0, wanted 1 to 1000 for the sampler ddim."),
        ({"Steps": "1001"}, {"Steps": "4"}, "Steps: got 1001, wanted 1 to 1000 for the sampler ddim."),
        ({"Seed": "-1"}, {"Seed": "0"}, "Seed: got -1, wanted an integer from 0 to 9007199254740991."),
    ],
)
def test_a_wrong_setting_is_told_and_can_be_corrected(
    visit: Visit, linear_webgpu_bundle: Bundle, wrong: dict[str, str], right: dict[str, str], complaint: str
):
    facts = visit("correctAMistake", linear_webgpu_bundle, wrong=wrong, right=right)
    assert facts["end"] == "Stopped"
    (message,) = facts["messages"]
    assert message.startswith(complaint)
    assert facts["endAfter"].startswith("Done")
    assert facts["messagesAfter"] == []


def test_a_prompt_that_is_cut_is_told_with_what_was_cut(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("writeAPrompt", linear_webgpu_bundle, prompt="x" * 60 + " gold circle with navy background")
    assert facts["end"].startswith("Done")
    assert facts["messages"] == ["Prompt: longer than 77 tokens, this end was cut: “navy background”"]


def test_a_picture_of_another_size_is_scaled_with_a_notice(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=png_file(np.zeros((20, 40, 3), np.uint8)))
    assert facts["end"].startswith("Done")
    assert facts["messagesAfter"] == [
        "Control image: 40x20 was scaled to cover 24x16 and cropped around its centre",
    ]


def test_a_large_picture_is_resampled_once(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=png_file(np.zeros((320, 480, 3), np.uint8)))
    assert facts["end"].startswith("Done")
    assert facts["messagesAfter"] == ["Control image: 480x320 was scaled to cover 24x16"]


def test_transparency_is_put_on_black_with_a_notice(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=png_file(np.full((16, 24, 4), 128, np.uint8)))
    assert facts["end"].startswith("Done")
    assert facts["messagesAfter"] == ["Control image: its transparency was composited on black"]


def test_sixteen_bit_grey_is_shown_as_eight(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=png_file(np.full((16, 24), 40_000, np.uint16)))
    assert facts["messages"] == []
    assert facts["end"].startswith("Done")


def test_a_picture_of_one_pixel_is_refused_and_the_ring_stays(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=png_file(np.zeros((1, 1, 3), np.uint8)))
    (message,) = facts["messages"]
    assert message.startswith("Control image: got 1x1 pixels, wanted 8x8 at least.")
    assert facts["end"].startswith("Done")


def test_a_file_that_is_no_picture_is_refused_and_the_ring_stays(visit: Visit, linear_webgpu_bundle: Bundle):
    text = base64.b64encode(b"not a picture").decode()
    file = {"name": "notes.txt", "mimeType": "text/plain", "base64": text}
    facts = visit("chooseAPicture", linear_webgpu_bundle, file=file)
    (message,) = facts["messages"]
    assert message.startswith("Control image notes.txt: got text/plain, wanted a picture such as PNG or JPEG.")
    assert facts["end"].startswith("Done")


def test_a_lost_gpu_costs_no_picture_and_a_second_loss_within_a_minute_is_told(
    visit: Visit, linear_webgpu_bundle: Bundle
):
    facts = visit("loseTheDevice", linear_webgpu_bundle, flags=CRASHES)
    assert [end.split(" ")[0] for end in facts["ends"]] == ["Done", "Stopped", "Done"]
    first, second, third = facts["messages"]
    assert [message.startswith("The GPU was lost") for message in first] == [True]
    assert any(message.startswith("GPU device: got lost") for message in second)
    assert not any(message.startswith("GPU device") for message in third)


def test_a_picture_is_the_same_wherever_the_gpu_is_lost(visit: Visit, engine_site: Path, linear_webgpu_bundle: Bundle):
    """While the model loads, while kernels compile, after the first step, in the middle, before the decoder."""
    places = ["load", "kernels", 0, 1, 3]
    facts = visit("surviveLosses", linear_webgpu_bundle, site=engine_site, flags=CRASHES, places=places)
    undisturbed = facts["drawn"].pop("nowhere")
    assert len(set(undisturbed["image"])) > 2
    assert set(facts["drawn"]) == {str(place) for place in places}
    for place, drawn in facts["drawn"].items():
        assert drawn["image"] == undisturbed["image"], place
        assert drawn["steps"] == 4, place  # none was drawn again
        told = sorted(set(drawn["notices"]) - set(undisturbed["notices"]))
        assert [notice.split(":")[0] for notice in told] == ["the GPU was lost"], place
