"""Texts of a training set are UTF-8, with or without a byte order mark."""

import codecs

from mlc_controlnet.errors import UserError

_MARKS = {  # the longest first: a mark of UTF-32 begins with one of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def decode_text(data: bytes, subject: str) -> str:
    """Decode UTF-8 to text, without the byte order mark.

    Raises UserError, which names the encoding, for text in UTF-16, UTF-32 or an encoding of one byte per letter.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:  # every other byte of English text in UTF-16 is zero
        encoding = "UTF-16"
    if encoding is None:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            encoding = f"an encoding of one byte per letter, such as Latin-1 (line {line})"
    raise UserError(subject, f"a text in {encoding}", "UTF-8", "save it again as UTF-8")
