"""The engine as a library: another site's script uses what `npm run build:engine` writes, without a bundler."""

from pathlib import Path

from mlc_controlnet.bundle.reader import Bundle
from tests.browser.conftest import Visit
from tests.fixtures.linear_bundle import HEIGHT, WIDTH


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
