"""Reads a run's configuration from a preset or a YAML file, and checks every name and value.

The option decides the type of its value, not the way the value is written. An option that is a text takes what the file
or the command line says: `no`, `010` and `2023-11-05` stay texts. YAML's own types would turn them into False, 8 and a
date.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from mlc_controlnet.errors import UserError, print_notice
from mlc_controlnet.train.config import TrainConfig
from mlc_controlnet.train.data.text import decode_text

PRESETS = Path(__file__).parent / "presets"
_WANTED = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
_NULL, _MERGE = "tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"


class _TextLoader(yaml.SafeLoader):
    """A YAML loader that reads every plain scalar as a text, except `null`, `~` and an empty value."""


_TextLoader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] in (_NULL, _MERGE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def preset_names() -> list[str]:
    """Return the names that `--config` accepts instead of a file."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a preset by its name or a YAML file by its path.

    Args:
        source: a bare name is a preset if there is one of that name; everything else is a path.
        overrides: `section.option=value` each. A text is taken as it stands; other values are written as in YAML.

    Raises:
        UserError: the file does not exist or holds no mapping, an option does not exist, or a value does not fit it.
    """
    file = Path(source)
    if source in preset_names():
        if file.exists():
            print_notice(f"--config {source} is the preset; for the file of that name, pass ./{source}")
        file = PRESETS / f"{source}.yaml"
    if not file.is_file():
        wanted = f"a preset ({', '.join(preset_names())}) or a YAML file"
        raise UserError("--config", f"{source!r}, which does not exist", wanted, "pass one of these")
    tree = _parse(decode_text(file.read_bytes(), str(file)), str(file))
    for override in overrides:
        _apply(override, tree)
    return from_tree(tree)


def from_tree(tree: Mapping[str, Any]) -> TrainConfig:
    """Build the configuration from nested mappings. Options that `tree` does not name keep their defaults.

    Raises:
        UserError: an option does not exist, or a value does not fit it.
    """
    config: TrainConfig = _build(TrainConfig, tree, "")
    return config


def documented_options() -> Iterator[tuple[str, Any, str]]:
    """Yield the name, the default and the meaning of every option."""
    for entry in dataclasses.fields(TrainConfig):
        if entry.name == "out":
            yield "out", entry.default, entry.metadata["meaning"]
            continue
        for option in dataclasses.fields(typing.get_type_hints(TrainConfig)[entry.name]):
            yield f"{entry.name}.{option.name}", option.default, option.metadata["meaning"]


def _apply(override: str, tree: dict[str, Any]) -> None:
    """Put the value of `section.option=value` into `tree`."""
    name, sign, text = override.partition("=")
    if not sign:
        raise UserError("--set", repr(override), "section.option=value", "for example --set trainer.max_steps=40")
    *sections, option = name.split(".")
    place = tree
    for section in sections:
        if place.get(section) is None:  # the file may name a section and leave it empty
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise UserError("--set", repr(override), f"{section} to be a section", "see train options")
    place[option] = _typed(name, text)


def _typed(name: str, text: str) -> Any:
    """Return what was typed for the option `name`: a text as it stands, anything else as YAML reads it."""
    allowed = _alternatives(_type_of(name))
    if str in allowed:
        return None if text == "null" and type(None) in allowed else text
    try:
        return yaml.load(text, _TextLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError:
        return text  # the check of its type names it


def _type_of(name: str) -> Any:
    """Return the type of `section.option`; None if there is no such option."""
    kind: Any = TrainConfig
    for part in name.split("."):
        kind = typing.get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
    return kind


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _parse(text: str, subject: str) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _TextLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(subject, f"no YAML ({str(error).splitlines()[0]})", "YAML", "correct it") from error
    if not isinstance(tree, dict):
        got = "an empty file" if tree is None else "no mapping"
        raise UserError(subject, got, "a mapping: model, data, optim, trainer, log, out", "correct it")
    return tree


def _build(kind: type, tree: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(prefix.rstrip("."), repr(tree), "a mapping of options", "indent them below it")
    hints = typing.get_type_hints(kind)
    for name in tree:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            remedy = f"did you mean {prefix}{near[0]}?" if near else "see `train options`"
            raise UserError(f"option {prefix}{name}", "no such option", f"one of {', '.join(hints)}", remedy)
    values = {}
    for name, value in tree.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = _build(hint, {} if value is None else value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            values[name] = _convert(f"{prefix}{name}", value, hint)
    return kind(**values)


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type that the option `name` has; a text becomes the number or the flag that it spells."""
    try:
        converted = msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError as error:
        wanted = " or ".join(_WANTED.get(kind, "a list of whole numbers") for kind in _alternatives(hint))
        raise UserError(name, repr(value), wanted, "correct it") from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise UserError(name, repr(value), "a finite number", "correct it")
    return converted
