"""Convert frozen dataclasses to JSON and back. Every value must fit its annotation; no key may be missing or unknown.

A field with a default may be missing: in a file that is older than the field, the default applies.
Twin: web/src/engine/json_record.ts.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from mlc_controlnet.errors import UserError

REMEDY = "the file is damaged or from another version: build the bundle again with python -m mlc_controlnet build"


def to_json(value: Any) -> Any:
    """Turn dataclasses into dicts and tuples into lists; everything else must be JSON already."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    return value


def from_json(annotation: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into `annotation`: a dataclass, bool, int, float, str, tuple[X, ...], tuple of fixed length or
    Mapping[str, X].

    `where` names the value in errors, for example `manifest.json: params.records[3].shape`.

    Raises UserError if the value does not fit.
    """
    if dataclasses.is_dataclass(annotation):
        return _record(annotation, value, where)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is tuple:
        return _tuple(arguments, value, where)
    if origin is Mapping or origin is dict:
        if not isinstance(value, dict):
            raise _misfit(where, value, "an object")
        return types.MappingProxyType({key: from_json(arguments[1], v, f"{where}.{key}") for key, v in value.items()})
    if annotation is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise _misfit(where, value, "a number")
        return float(value)
    if annotation is bool:
        if not isinstance(value, bool):
            raise _misfit(where, value, "true or false")
        return value
    if annotation is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _misfit(where, value, "an integer")
        return value
    if annotation is str:
        if not isinstance(value, str):
            raise _misfit(where, value, "a string")
        return value
    raise TypeError(f"{where}: there is no JSON form for {annotation}")


def _record(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _misfit(where, value, "an object")
    annotations = typing.get_type_hints(cls)
    needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
    if missing := sorted(needed - value.keys()):
        raise UserError(where, f"no {', '.join(missing)}", "every key of the format", REMEDY)
    if unknown := sorted(value.keys() - annotations.keys()):
        raise UserError(where, f"unknown {', '.join(unknown)}", "only the keys of the format", REMEDY)
    present = {name: kind for name, kind in annotations.items() if name in value}
    return cls(**{name: from_json(kind, value[name], f"{where}.{name}") for name, kind in present.items()})


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _misfit(where, value, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(from_json(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise _misfit(where, value, f"a list of {len(arguments)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(from_json(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))


def _misfit(where: str, value: Any, wanted: str) -> UserError:
    shown = repr(value)
    return UserError(where, shown if len(shown) <= 60 else shown[:57] + "...", wanted, REMEDY)
