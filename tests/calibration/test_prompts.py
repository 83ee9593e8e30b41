from pathlib import Path

import pytest

from mlc_controlnet.calibration.prompts import read_prompts
from mlc_controlnet.errors import UserError


def test_a_prompt_of_the_command_line_is_taken_as_it_is() -> None:
    assert read_prompts(" gold circle with navy background ") == ("gold circle with navy background",)
    assert read_prompts("a castle, " * 1000)[0].startswith("a castle")


def test_a_file_has_a_prompt_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_bytes(b"\xef\xbb\xbfa red circle\r\n\r\n  ein gr\xc3\xbcner Kreis \n")
    assert read_prompts(str(file)) == ("a red circle", "ein grüner Kreis")
    file.write_text("a red\u2028circle\x85of paint\na cat", encoding="utf-8")
    assert read_prompts(str(file)) == ("a red\u2028circle\x85of paint", "a cat")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", r"prompts\.txt: got a file without a prompt, of 0 bytes, wanted a prompt, or a text file with"),
        (b" \n\t\n", r"got a file without a prompt, of 4 bytes"),
        (b"a circle\n\xff\xd8\xff", r"got byte 9 of 12 that is not UTF-8"),
        (b"a\0b", r"got a file with zero bytes"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_prompts(str(tmp_path / "prompts.txt"))


def test_neither_nothing_nor_a_folder_nor_a_missing_file_is_a_prompt(tmp_path: Path) -> None:
    for text, complaint in (
        ("", r"--calibrate: got no prompt"),
        ("  ", r"--calibrate: got no prompt"),
        (str(tmp_path), r"got a folder"),
        (str(tmp_path / "mine.txt"), r"mine\.txt: got no such file"),
    ):
        with pytest.raises(UserError, match=complaint):
            read_prompts(text)
