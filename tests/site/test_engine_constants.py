from mlc_controlnet.site.engine_constants import PATH, render


def test_the_engine_has_the_constants_of_the_package():
    """If this fails, run `python -m mlc_controlnet.site.engine_constants`."""
    assert PATH.read_text(encoding="utf-8") == render()
