"""The texts that a picture's PNG file carries, and the settings that come back from them.

A file has two texts. `parameters` is Stable Diffusion web UI's, which many programs read. `mlc-controlnet` is our own
record, exact and complete. Neither is called `prompt`: ComfyUI takes a text of that name for a workflow of its own.
Twin: web/src/engine/metadata.ts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlc_controlnet.errors import UserError
from mlc_controlnet.runtime.infotext import read_infotext, write_infotext
from mlc_controlnet.runtime.option_text import words
from mlc_controlnet.runtime.png import PARAMETERS, read_texts
from mlc_controlnet.runtime.request import OPTIONS, Settings, to_record

RECORD = "mlc-controlnet"
# Options that any text is a value of, also one that is a number in JSON.
FREE_TEXTS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")


@dataclass(frozen=True)
class RestoredSettings:
    """What a PNG file says of how it was made.

    Attributes:
        options: values by option, as a request takes them; complete only in a file of ours.
        model: the model's name; "" if another program made the file.
        bundle_sha256: of the bundle that drew the picture; "" if another program made the file.
        notices: what could not be read.
    """

    options: Mapping[str, Any]
    model: str
    bundle_sha256: str
    notices: tuple[str, ...]


def to_metadata(settings: Settings, model: str, bundle_sha256: str) -> dict[str, str]:
    """Return the texts of a PNG file."""
    record = {**to_record(settings), "model": model, "bundle_sha256": bundle_sha256}
    own = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return {PARAMETERS: write_infotext(settings, model, bundle_sha256), RECORD: own}


def read_settings(data: bytes, subject: str = "picture") -> RestoredSettings:
    """Read how a picture was made, from the content of its PNG file. Our own record comes before web UI's text.

    Raises UserError if it is no PNG file, or one that says nothing of this.
    """
    texts = read_texts(data, subject)
    if RECORD in texts:
        return _read_record(texts[RECORD], subject)
    options, notices = read_infotext(texts.get(PARAMETERS, ""))
    if not options:
        wanted = "a picture that this program or Stable Diffusion web UI has made"
        raise UserError(subject, "a PNG file without settings", wanted, "pass another file")
    return RestoredSettings(_usable(options, notices), "", "", tuple(notices))


def _read_record(text: str, subject: str) -> RestoredSettings:
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
        raise UserError(subject, f"a text {RECORD} that is no record", "the settings of a picture", "pass another file")
    options = {name: _parsed_value(name, record[name]) for name in OPTIONS if name in record}
    unknown = [name for name in record if name not in (*OPTIONS, "model", "bundle_sha256")]
    notices = [f"{words(name)} is not known here and was left out" for name in unknown]
    checked = _usable(options, notices)
    return RestoredSettings(checked, record.get("model", ""), record.get("bundle_sha256", ""), tuple(notices))


def _usable(options: Mapping[str, Any], notices: list[str]) -> dict[str, Any]:
    """Return the options that a request may have; each other one becomes a notice."""
    usable = {}
    for name, value in options.items():
        try:
            usable[name] = OPTIONS[name].check(words(name), value)
        except UserError as error:
            notices.append(f"{words(name)} {error.got} cannot be used and was left out")
    return usable


def _parsed_value(name: str, text: str) -> Any:
    """Return the value that `to_text` has written."""
    if name in FREE_TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
