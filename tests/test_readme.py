"""What the documents point at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "document", ["README.md", "docs/performance.md", "web/README.md", "mlc_controlnet/train/README.md"]
)
def test_links_and_pictures_exist(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\(([^):#]+)\)|(?:src|srcset)=\"([^\":]+)\"", path.read_text())
    missing = [link or source for link, source in targets if not (path.parent / (link or source)).exists()]
    assert missing == []


def test_the_control_image_of_the_first_picture_is_there() -> None:
    (image,) = re.findall(r"--control-image (\S+)", (ROOT / "README.md").read_text())
    assert (ROOT / image).is_file()
