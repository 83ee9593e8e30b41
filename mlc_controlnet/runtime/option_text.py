"""Options as text: on the command line, in error messages and in the metadata of a PNG file."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any


def words(name: str) -> str:
    """Return a field's name as error messages write it: `guidance scale` for `guidance_scale`."""
    return name.replace("_", " ")


def json_number(value: float) -> str:
    """Return a finite number as JavaScript and RFC 8785 (section 3.2.2.3) write it: 2 for 2.0, 1e-7 for 1e-07."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    return re.sub(r"(?:\.0)?e([+-])0*", r"e\1", repr(value))


def to_text(value: Any) -> str:
    """Return a value as a PNG file's metadata has it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else _to_json(value)


def _to_json(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_to_json, value))}]"
    return json_number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


# What text the functions take that parse it on the command line, by their names: argparse names them in its errors.
FORMS = {
    "int": "an integer",
    "float": "a number",
    "numbers": "numbers with commas between them",
    "integers": "two integers with a comma between them",
    "true_or_false": "true or false",
    "_widths": "integers with commas between them",
}


def one_or_more(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Parse `0.5` or, with a value for each ControlNet, `0.5,1`."""

    def value(text: str) -> Any:
        values = [parse(part) for part in text.split(",")]
        return values[0] if len(values) == 1 else values

    value.__name__ = parse.__name__  # "invalid float value", and not "invalid value value"
    return value


def numbers(text: str) -> list[float]:
    """Parse `999,759.5,499`."""
    return [float(part) for part in text.split(",")]


def integers(text: str) -> list[int]:
    """Parse `1024,768`."""
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    """Parse `canny,depth`; an empty text is no name."""
    return text.split(",") if text else []


def true_or_false(text: str) -> bool:
    """Parse `true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"
