import pytest
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.png import check_output_path, write_png


def test_the_metadata_can_be_read_back(tmp_path):
    metadata = {"prompt": "żółty krąg — 金", "seed": "0"}
    write_png(tmp_path / "out.png", Image.new("RGB", (8, 8), "gold"), metadata)
    with Image.open(tmp_path / "out.png") as image:
        assert {key: str(image.text[key]) for key in metadata} == metadata


def test_a_write_that_fails_leaves_the_older_picture(tmp_path):
    write_png(tmp_path / "out.png", Image.new("RGB", (8, 8), "gold"), {})
    before = (tmp_path / "out.png").read_bytes()
    with pytest.raises(OSError, match="HSV"):
        write_png(tmp_path / "out.png", Image.new("HSV", (8, 8)), {})
    assert (tmp_path / "out.png").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "out.png"]


def test_a_path_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    with pytest.raises(UserError, match=r"wanted \.png"):
        check_output_path(tmp_path / "out.jpg")
    with pytest.raises(UserError, match="wanted an existing folder"):
        check_output_path(tmp_path / "none" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="got a folder"):
        check_output_path(tmp_path / "folder.png")
