"""The checks of a picture's options, one at a time. Twin: web/src/engine/option_checks.ts.

Each takes the option's name in words and a value, and returns the value or raises UserError.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.runtime.option_text import json_number
from mlc_controlnet.runtime.prompt_syntax import PROMPT_SYNTAXES

MAX_SEED = 2**53 - 1  # the largest integer that is exact in JavaScript
MAX_PIXELS = 65536  # of a time id; its sinusoids are exact up to there
BALANCED, PROMPT, CONTROL = CONTROL_MODES = ("balanced", "prompt", "control")
UPSCALE_MODES = ("bilinear", "nearest", "nearest-exact", "bicubic")  # sd-webui's "Latent" and "Latent (...)"

T = TypeVar("T")


def check_text(subject: str, value: Any) -> str:
    """Return `value` if it is a string that UTF-8 can hold; raise UserError otherwise."""
    if not isinstance(value, str):
        raise UserError(subject, type(value).__name__, "one string", "pass the text itself, one picture per call")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(subject, "bytes that are not UTF-8", "text", "type it in a UTF-8 terminal") from None
    return value


def check_integer(subject: str, value: Any) -> int:
    """Return `value` if it is an integer; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(subject, repr(value), "an integer", "choose another number")
    return value


def check_number(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(subject, repr(value), "a finite number", "choose another number")
    return float(value)


def check_seed(subject: str, value: Any) -> int:
    """Return `value` if it is an integer from 0 to MAX_SEED; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
        raise UserError(subject, repr(value), f"an integer from 0 to {MAX_SEED}", "choose another seed")
    return value


def check_flag(subject: str, value: Any) -> bool:
    """Return `value` if it is a bool; raise UserError otherwise."""
    if not isinstance(value, bool):
        raise UserError(subject, repr(value), "True or False", "pass one of them")
    return value


def check_mode(subject: str, value: Any) -> str:
    """Return `value` if it is one of CONTROL_MODES; raise UserError otherwise."""
    check_one_of(subject, value, CONTROL_MODES)
    return str(value)


def check_syntax(subject: str, value: Any) -> str:
    """Return `value` if it is one of PROMPT_SYNTAXES; raise UserError otherwise."""
    check_one_of(subject, value, PROMPT_SYNTAXES)
    return str(value)


def check_names(subject: str, value: Any) -> tuple[str, ...]:
    """Return `value`, a sequence of strings, as a tuple; raise UserError otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(subject, repr(value), "a list of names", "put the name into a list")
    return tuple(check_text(subject, name) for name in value)


def check_share(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a number from 0 to 1; raise UserError otherwise."""
    number = check_number(subject, value)
    if not 0 <= number <= 1:
        raise UserError(subject, json_number(number), "a number from 0 to 1", "choose another number")
    return number


def check_numbers(subject: str, value: Any) -> tuple[float, ...] | None:
    """Return `value`, None or a sequence of finite numbers, as a tuple; raise UserError otherwise."""
    if value is None:
        return None
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise UserError(subject, repr(value), "a list of numbers", "put the number into a list")
    return tuple(check_number(subject, float(number)) for number in value)


def check_pair(subject: str, value: Any) -> tuple[int, int] | None:
    """Return `value`, None or two integers of 0 or more, as a tuple; raise UserError otherwise."""
    if value is None:
        return None
    items = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else []
    if len(items) != 2 or any(isinstance(i, bool) or not isinstance(i, int) or not 0 <= i <= MAX_PIXELS for i in items):
        wanted = f"two integers from 0 to {MAX_PIXELS}, the vertical one first"
        raise UserError(subject, repr(value), wanted, "leave it out for the usual one")
    return items[0], items[1]


def check_text_or_none(subject: str, value: Any) -> str | None:
    """Return `value` if it is None or a string; raise UserError otherwise."""
    return None if value is None else check_text(subject, value)


def or_none(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """Return a check that also lets None pass."""
    return lambda subject, value: None if value is None else check(subject, value)


def one_or_each(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | tuple[T, ...]]:
    """Return a check that takes one value for all ControlNets, or a list with a value for each."""

    def check_all(subject: str, value: Any) -> T | tuple[T, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return check(subject, value)
        return tuple(check(subject, item) for item in value)

    return check_all


def check_hires_scale(subject: str, value: Any) -> float:
    """Return `value` as a float if it is a finite number of 1 or more; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
        raise UserError(subject, repr(value), "a number of 1 or more", "2 is usual; leave it out to draw once")
    return float(value)


def check_hires_steps(subject: str, value: Any) -> int:
    """Return `value` if it is an integer of 1 or more; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(subject, repr(value), "an integer of 1 or more", "leave it out for as many as before")
    return value


def check_upscaler(subject: str, value: Any) -> str:
    """Return `value` if it is one of UPSCALE_MODES; raise UserError otherwise."""
    check_one_of(subject, value, UPSCALE_MODES)
    return str(value)
