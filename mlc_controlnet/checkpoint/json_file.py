"""Read the JSON files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from mlc_controlnet.errors import UserError


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object, with or without a byte order mark.

    Raises:
        UserError: there is no such file, or it does not hold a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(str(path), "no such file", "a model in diffusers' layout", "save the model again") from None
    except ValueError as error:
        raise UserError(str(path), f"no JSON ({error})", "a JSON object", "save the model again") from error
    if not isinstance(value, dict):
        raise UserError(str(path), type(value).__name__, "a JSON object", "save the model again")
    return value
