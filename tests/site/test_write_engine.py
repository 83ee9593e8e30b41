import shutil
from pathlib import Path

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import THIRD_PARTY_LICENSES
from mlc_controlnet.site import write_engine as module
from mlc_controlnet.site.write_engine import write_engine


@pytest.fixture
def carried_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with an engine in it."""
    engine = tmp_path / "packaged" / "engine"
    engine.mkdir(parents=True)
    (engine / "engine.js").write_text("export {}")
    monkeypatch.setattr(module, "ENGINE", engine)
    monkeypatch.setattr(module, "IS_CHECKOUT", False)
    return engine


def test_an_installed_package_copies_the_engine_that_it_carries(tmp_path: Path, carried_engine: Path) -> None:
    for _ in range(2):  # the second time it replaces an older engine
        write_engine(tmp_path / "engine")
    assert {path.name for path in (tmp_path / "engine").iterdir()} == {"engine.js", THIRD_PARTY_LICENSES.name}


def test_a_package_without_an_engine_says_so(tmp_path: Path, carried_engine: Path) -> None:
    shutil.rmtree(carried_engine)
    with pytest.raises(UserError, match="install mlc-controlnet from a complete wheel"):
        write_engine(tmp_path / "engine")


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, carried_engine: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(UserError, match="something that is not an engine"):
        write_engine(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").exists()
