from pathlib import Path

import pytest

from mlc_controlnet.locations import BUNDLED_MODELS
from mlc_controlnet.site.model_card import licence_in, picture_in


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n\n# Mine\n", "mit"),
        ("---\nlicense: other\nlicense_name: my-licence\n---\n", "my-licence"),
        ("# A card without metadata\n", ""),
        ("---\nlicense: [mit, apache-2.0]\n---\n", ""),
    ],
)
def test_the_licence_is_the_one_in_the_cards_metadata(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_in(tmp_path) == licence


@pytest.mark.parametrize("card", [b"---\n: [\n---\n", b"---\n- mit\n---\n", b"\xff\xfe"])
def test_a_damaged_card_is_noticed_and_stops_nothing(
    tmp_path: Path, card: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_bytes(card)
    assert licence_in(tmp_path) == ""
    assert "README.md: its metadata is not read" in capsys.readouterr().err


def test_a_folder_without_card_and_picture_says_nothing(tmp_path: Path) -> None:
    assert licence_in(tmp_path) == "" and picture_in(tmp_path) is None


def test_every_bundled_model_has_a_licence_and_a_picture() -> None:
    folders = [path.parent for path in BUNDLED_MODELS.glob("*/model_index.json")]
    assert folders
    for folder in folders:
        assert licence_in(folder) and picture_in(folder) is not None
