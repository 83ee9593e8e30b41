"""A run's config from a preset or a YAML file, every name and value checked."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlc_controlnet.errors import UserError
from mlc_controlnet.train.config import TrainConfig

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Return the names that `--config` knows, in alphabetical order."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a preset by its name or a YAML file by its path.

    overrides: `section.option=value` each, the value in YAML's writing.
    Raises UserError for a file that is not there or no mapping, and for names and values that can not be.
    """
    file = PRESETS / f"{source}.yaml"
    if not file.is_file():
        file = Path(source)
    if not file.is_file():
        wanted = f"a preset ({', '.join(preset_names())}) or a YAML file"
        raise UserError("--config", f"{source!r}, which does not exist", wanted, "pass one of these")
    tree = _parse(file.read_text(encoding="utf-8"), str(file))
    for override in overrides:
        name, sign, text = override.partition("=")
        if not sign:
            raise UserError("--set", repr(override), "section.option=value", "for example --set trainer.max_steps=40")
        *sections, option = name.split(".")
        place = tree
        for section in sections:
            if place.get(section) is None:  # also where the file names a section and nothing in it
                place[section] = {}
            place = place[section]
            if not isinstance(place, dict):
                raise UserError("--set", repr(override), f"{section} to be a section", "see train options")
        place[option] = _value(text)
    return from_tree(tree)


def from_tree(tree: Mapping[str, Any]) -> TrainConfig:
    """Build the config from nested mappings; options that are not named keep their defaults.

    Raises UserError for a name that no option has and a value of another type.
    """
    config: TrainConfig = _build(TrainConfig, tree, "")
    return config


def documented_options() -> Iterator[tuple[str, Any, str]]:
    """Name, default and meaning of every option."""
    for entry in dataclasses.fields(TrainConfig):
        if entry.name == "out":
            yield "out", entry.default, entry.metadata["meaning"]
            continue
        for option in dataclasses.fields(typing.get_type_hints(TrainConfig)[entry.name]):
            yield f"{entry.name}.{option.name}", option.default, option.metadata["meaning"]


def _value(text: str) -> Any:
    """What a config would hold; text that is no YAML, as {0..9}.tar and a prompt with a colon, stands for itself."""
    try:
        return yaml.safe_load(f"value: {text}")["value"]
    except yaml.YAMLError:
        return text


def _parse(text: str, subject: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(subject, f"no YAML ({str(error).splitlines()[0]})", "YAML", "correct it") from error
    if not isinstance(tree, dict):
        raise UserError(subject, type(tree).__name__, "a mapping: model, data, optim, trainer, log, out", "correct it")
    return tree


def _build(kind: type, tree: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(prefix.rstrip("."), type(tree).__name__, "a mapping of options", "indent them below it")
    hints = typing.get_type_hints(kind)
    for name in tree:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else "see python -m mlc_controlnet train options"
            raise UserError(f"option {prefix}{name}", "no such option", f"one of {', '.join(hints)}", hint)
    values = {}
    for name, value in tree.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = _build(hint, {} if value is None else value, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            values[name] = _coerce(f"{prefix}{name}", value, hint)
    return kind(**values)


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """`value` as `hint` wants it; YAML's own types are close, but 1e-5 is a string there and 32 a number."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if option is bool and isinstance(value, bool):
            return value
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                continue
        if option is str and isinstance(value, (str, int)) and not isinstance(value, bool):
            return str(value)
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            return tuple(_coerce(name, item, typing.get_args(option)[0]) for item in value)
    wanted = " or ".join("null" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise UserError(name, repr(value), wanted, "correct it")
