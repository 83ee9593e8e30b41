"""Results, settings and models of the page: what stays on the machine, what comes back, and what leaves it: nothing."""

import gzip
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlc_controlnet.bundle.reader import Bundle
from mlc_controlnet.runtime.metadata import read_settings
from mlc_controlnet.site.hosting import prepare_for_hosts
from mlc_controlnet.site.models_file import Listing, describe_model, models_text
from tests.browser.conftest import Visit

APP_BYTES = 300_000  # gzipped, without OpenCV.js, ONNX and weights
FIRST_PAINT_MS = 1000  # on localhost
ON_DEMAND = re.compile("opencv|ort|onnx")  # fetched when they are used


@pytest.fixture(scope="module")
def facts(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("keepAndShare", linear_webgpu_bundle)


def test_a_run_of_several_pictures_has_consecutive_seeds_and_all_are_kept(facts: dict[str, Any]):
    assert re.fullmatch(r"Done in [\d.]+ s with seed 42", facts["end"])
    assert facts["drawn"] == 2
    assert facts["reloaded"]["pictures"] == 2
    assert "seed 42" in facts["facts"]


def test_two_pictures_are_compared_by_keys(facts: dict[str, Any]):
    assert facts["compared"] == "51"


def test_a_kept_picture_is_a_file_with_its_settings_and_can_be_used_again(facts: dict[str, Any]):
    restored = read_settings(Path(facts["png"]).read_bytes())
    assert (restored.options["seed"], restored.options["num_inference_steps"]) == (42, 4)
    assert restored.model == "linear"
    assert facts["usedAgain"] == "42"


def test_a_click_beside_a_dialog_closes_it_and_nothing_else_does_and_what_is_written_there_stays(facts: dict[str, Any]):
    assert facts["dismissed"] == [{"open": [True, False], "focused": "dialog"}] * 2  # the button that opened it
    assert facts["written"] == "./half/writ"


def test_the_button_that_closes_a_picture_is_seen_on_any_picture(facts: dict[str, Any]):
    assert facts["closeGround"].startswith("rgb(")  # it hides what is below it; rgba has an alpha


def test_settings_survive_a_reload(facts: dict[str, Any]):
    assert facts["reloaded"]["prompt"] == "red"


def test_a_dropped_file_restores_its_settings(facts: dict[str, Any]):
    assert facts["dropped"]["prompt"] == read_settings(Path(facts["png"]).read_bytes()).options["prompt"]
    assert facts["dropped"]["messages"] == ["The settings of the picture are restored."]


def test_a_link_brings_the_settings_and_sends_them_to_no_server(facts: dict[str, Any]):
    assert facts["linked"]["hash"].startswith("#prompt=red&")
    assert facts["linked"]["prompt"] == "red"
    assert facts["linked"]["sent"] == []
    left = [address for address in facts["linked"]["addresses"] if "#" in address]
    assert left == []  # a reload would bring its settings again


def test_the_page_speaks_german(facts: dict[str, Any]):
    assert facts["german"] == {"lang": "de", "button": "Malen", "title": "Umriss zeichnen, Bild beschreiben"}


def test_nothing_leaves_the_browser(facts: dict[str, Any]):
    assert facts["foreign"] == []
    assert facts["requestsAfterLoading"] == []
    assert facts["complaints"] == []


@pytest.mark.slow  # timed: a busy machine paints later
def test_the_first_paint_comes_within_a_second(facts: dict[str, Any]):
    """The median of three visits."""
    assert sorted(facts["firstPaintsMs"])[1] <= FIRST_PAINT_MS


def test_the_page_is_small(site: Path):
    files = [site / "index.html", *(site / "assets").iterdir()]
    sizes = {path.name: len(gzip.compress(path.read_bytes(), 9)) for path in files if not ON_DEMAND.search(path.name)}
    assert sum(sizes.values()) <= APP_BYTES, sizes


def test_where_nothing_may_be_kept_the_page_says_so_and_draws(visit: Visit, linear_webgpu_bundle: Bundle):
    facts = visit("drawInAPrivateWindow", linear_webgpu_bundle)
    assert facts["end"].startswith("Done")
    assert facts["pictures"] == 1
    assert facts["messages"][-1].startswith("This browser keeps no pictures here")
    assert facts["complaints"] == []


@pytest.fixture(scope="module")
def compared(visit: Visit, linear_webgpu_bundle: Bundle) -> dict[str, Any]:
    return visit("comparePicturesOnAPhone", linear_webgpu_bundle)


def test_the_dialog_of_a_picture_has_its_size_before_the_picture_has_loaded(compared: dict[str, Any]):
    assert not compared["isLoaded"]
    assert len(set(compared["sizes"])) == 1  # as it opens, then, and with another picture over it


def test_on_a_narrow_phone_compared_pictures_their_line_and_the_way_back_are_in_sight_together(
    compared: dict[str, Any],
):
    assert compared["inSight"] == [True, True, True]


def test_what_can_be_done_with_a_picture_looks_as_other_buttons_do(compared: dict[str, Any]):
    assert len(compared["colors"]) == 2 and len(set(compared["colors"])) == 1


@pytest.fixture
def ordinary_host(tmp_path: Path, site: Path, linear_webgpu_bundle: Bundle) -> Iterator[str]:
    """The site in a folder of Python's own server, which sends no header of ours; yields its address."""
    folder = tmp_path / "host" / "some" / "folder"
    shutil.copytree(site, folder)
    shutil.copytree(linear_webgpu_bundle.path, folder / "bundle")
    entry = describe_model(linear_webgpu_bundle.manifest, "bundle/", "", Listing("MIT"))
    (folder / "models.json").write_text(models_text([entry]), encoding="utf-8")
    prepare_for_hosts(folder)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "host"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/some/folder/"
        server.shutdown()
        thread.join()


def test_an_ordinary_host_serves_the_site_from_a_folder(
    visit: Visit, linear_webgpu_bundle: Bundle, ordinary_host: str
) -> None:
    facts = visit("drawBelowTheRoot", linear_webgpu_bundle, url=ordinary_host)
    assert facts["end"].startswith("Done") and facts["again"].startswith("Done")
    assert facts["complaints"] == []
    assert not facts["before"] and facts["isolated"]  # by the service worker, from the second visit on
    assert "linear" in facts["button"]
    (model,) = facts["list"]
    assert "24×16" in model and "MIT" in model and "on this machine" in model
